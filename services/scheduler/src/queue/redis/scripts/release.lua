-- ARGV: 5 deliveries at most, 6 hold, then of each delivery id, fence, worker to avoid or ''.
local most, hold, out = tonumber(ARGV[5]), tonumber(ARGV[6]), {}
for i = 7, #ARGV, 3 do
  local e = entry(ARGV[i])
  if not e or e.s ~= 'L' or e.f ~= ARGV[i + 1] then
    out[#out + 1] = 'X'
  elseif e.d >= most then
    settle(e, hold)
    out[#out + 1] = 'E'
  else
    turn(e, 'R')
    call('HSET', task(e.id), 'av', ARGV[i + 2])
    out[#out + 1] = 'R'
  end
end
return done(out)
