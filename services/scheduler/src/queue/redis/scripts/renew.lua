-- ARGV: 5 hold, then of each settled delivery id, fence. Answers 1 for those that are held.
local hold, out = tonumber(ARGV[5]), {}
for i = 6, #ARGV, 2 do
  local v = call('HMGET', task(ARGV[i]), 's', 'f')
  local held = v[1] == 'S' and v[2] == ARGV[i + 1]
  if held then
    call('ZADD', HELD, now + hold, ARGV[i])
    call('HSET', task(ARGV[i]), 'un', now + hold)
  end
  out[#out + 1] = held and 1 or 0
end
return done(out)
