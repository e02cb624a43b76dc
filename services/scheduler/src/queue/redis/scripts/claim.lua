-- ARGV: 5 lease, then of each delivery id, fence.
local span, out = tonumber(ARGV[5]), {}
for i = 6, #ARGV, 2 do
  local e = entry(ARGV[i])
  local how
  if not e then how = 'U'
  elseif e.f ~= ARGV[i + 1] then how = 'X'
  elseif e.s == 'S' then how = 'S'
  else
    how = 'L'
    if e.s == 'L' then call('HSET', task(e.id), 'un', math.max(e.un, now + span)) else lease(e, span) end
  end
  out[#out + 1] = how
end
return done(out)
