-- ARGV: 5 how long the ends of these attempts are remembered (0: they have not ended), then of each task id, fence ('' : whatever it is),
-- attempt. Answers queue and, where it was leased, fence.
local remembered, out = tonumber(ARGV[5]), {}
for i = 6, #ARGV, 3 do
  local e = entry(ARGV[i])
  local fits = e and (ARGV[i + 1] == '' or e.f == ARGV[i + 1])
  if remembered > 0 and (fits or not e) then call('SET', T .. ':e:' .. ARGV[i], ARGV[i + 2], 'PX', remembered) end
  if fits then
    forget(e)
    out[#out + 1] = { e.q, e.s == 'L' and e.f or '' }
  else
    out[#out + 1] = {}
  end
end
return done(out)
