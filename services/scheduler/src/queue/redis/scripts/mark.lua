-- ARGV: 5 lease, then of each delivery that a worker has id, attempt, fence.
local span = tonumber(ARGV[5])
for i = 6, #ARGV, 3 do
  local id, a, f = ARGV[i], tonumber(ARGV[i + 1]), ARGV[i + 2]
  local e = entry(id)
  if not e then
    call('HSET', T .. ':marks', id, ARGV[i + 1] .. ':' .. f)
    call('PEXPIRE', T .. ':marks', span)
  elseif e.a == a and e.d == 0 and e.fl < f and f >= e.lf and (e.s == 'R' or e.s == 'D') then
    e.f, e.d = f, 1
    lease(e, span)
  end
end
return done({})
