-- ARGV: 5 lease, 6 id, 7 attempt, 8 fence of a delivery from before a loss. Answers 1 where it goes on.
local e, f = entry(ARGV[6]), ARGV[8]
if not e or e.s == 'S' or e.a ~= tonumber(ARGV[7]) or f <= e.f or f <= e.fl or f < e.lf then return done(0) end
e.f, e.d = f, math.max(e.d, 1)
lease(e, tonumber(ARGV[5]))
return done(1)
