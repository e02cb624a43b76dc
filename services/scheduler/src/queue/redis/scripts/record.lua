-- ARGV: 5... of each record task id, index, bytes.
for i = 5, #ARGV, 3 do
  local s = call('HGET', task(ARGV[i]), 's')
  if s and s ~= 'S' then
    call('HSETNX', T .. ':x:' .. ARGV[i], ARGV[i + 1], ARGV[i + 2])
    call('HSET', task(ARGV[i]), 'rc', 1)
  end
end
return done({})
