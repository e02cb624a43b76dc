-- For the walk over all pending requests, and for counting them.
CREATE INDEX approvals_pending ON approvals (seq) WHERE status = 'pending';
