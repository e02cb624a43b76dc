-- ARGV: 5... queues.
local out = {}
for i = 5, #ARGV do out[#out + 1] = status(ARGV[i]) end
return done(out)
