-- ARGV: 5 lease, 6 hold, 7 least fence, 8 tasks at most. Answers queues with ready tasks, expired leases, timed out, overdue, and whether
-- there is more.
local span, hold, base, most = tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7], tonumber(ARGV[8])
local expired, timed_out, overdue = {}, {}, {}

local function tell(list, e) list[#list + 1] = { e.id, e.f, e.a, e.q } end

local function look(e)
  if e.s ~= 'S' and e.dl and e.dl <= now then
    if e.f == NONE then e.f = next_fence(base, e) end
    tell(overdue, e)
    settle(e, hold)
  elseif e.s == 'L' and e.ta <= now then
    tell(timed_out, e)
    settle(e, hold)
  elseif e.s == 'L' and e.un <= now then
    tell(expired, e)
    -- The caller gives it back now; should it fail to, the lease is looked at again.
    e.un = now + span
    call('HSET', task(e.id), 'un', e.un)
    arm(e)
  elseif e.s == 'D' and e.ra <= now then
    turn(e, 'R')
  else
    arm(e)
  end
end

local ids = call('ZRANGEBYSCORE', DUE, '-inf', now, 'LIMIT', 0, most)
for _, id in ipairs(ids) do
  local e = entry(id)
  if e then look(e) else call('ZREM', DUE, id) end
end
-- Who had settled these has gone without their results having been written: their workers are lost too, or have not come back.
local left = call('ZRANGEBYSCORE', HELD, '-inf', now, 'LIMIT', 0, most)
for _, id in ipairs(left) do
  local e = entry(id)
  if e and e.s == 'S' then
    tell(expired, e)
    lease(e, span)
  else
    call('ZREM', HELD, id)
  end
end
local more = (#ids == most or #left == most) and 1 or 0
return done({ call('SMEMBERS', READY), expired, timed_out, overdue, more })
