-- ARGV: 5 lease, then of each delivery id, fence.
local until_, out = now + tonumber(ARGV[5]), {}
for i = 6, #ARGV, 2 do
  local v = call('HMGET', task(ARGV[i]), 's', 'f', 'un')
  local leased = v[1] == 'L' and v[2] == ARGV[i + 1]
  -- The timer stays where it is: it looks again when it fires, so that a sign of progress costs little.
  if leased and tonumber(v[3]) < until_ then call('HSET', task(ARGV[i]), 'un', until_) end
  out[#out + 1] = leased and 1 or 0
end
return done(out)
