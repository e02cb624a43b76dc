-- ARGV: 5... of each task id, fence ('' : whatever it is). Answers queue and, where it was leased, fence.
local out = {}
for i = 5, #ARGV, 2 do
  local e = entry(ARGV[i])
  if e and (ARGV[i + 1] == '' or e.f == ARGV[i + 1]) then
    forget(e)
    out[#out + 1] = { e.q, e.s == 'L' and e.f or '' }
  else
    out[#out + 1] = {}
  end
end
return done(out)
