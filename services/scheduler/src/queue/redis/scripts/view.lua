-- ARGV: 5... task ids. Answers queue, state, attempt, fence, ready at, end of the lease, rank.
local out = {}
for i = 5, #ARGV do
  local e = entry(ARGV[i])
  if e then
    local rank = e.s == 'R' and call('ZRANK', ready(e.q), e.m) or 0
    out[#out + 1] = { e.q, e.s, e.a, e.f, string.format('%.0f', e.ra), string.format('%.0f', e.un), rank }
  else
    out[#out + 1] = {}
  end
end
return done(out)
