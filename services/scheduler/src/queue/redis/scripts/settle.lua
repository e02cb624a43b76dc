-- ARGV: 5 hold, then of each delivery id, fence. Answers 1: settled, 2: it was settled under this fence (the hold is renewed), 0: no.
local hold, out = tonumber(ARGV[5]), {}
for i = 6, #ARGV, 2 do
  local e = entry(ARGV[i])
  local how = 0
  if e and e.f == ARGV[i + 1] then
    how = e.s == 'S' and 2 or 1
    settle(e, hold)
  end
  out[#out + 1] = how
end
return done(out)
