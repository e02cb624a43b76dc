-- ARGV: 5 ready tasks to look at for the oldest. Answers of each queue its name, ready, delayed, leased, since when its oldest waits.
local names, out = {}, {}
for _, q in ipairs(call('SMEMBERS', READY)) do names[q] = true end
for _, which in ipairs({ LATER, BUSY }) do
  for _, q in ipairs(call('HKEYS', which)) do names[q] = true end
end
for q in pairs(names) do
  local oldest
  for _, m in ipairs(call('ZRANGE', ready(q), 0, tonumber(ARGV[5]) - 1)) do
    local since = tonumber(call('HGET', task(string.sub(m, 17)), 'si') or '')
    if since and (not oldest or since < oldest) then oldest = since end
  end
  out[#out + 1] = { q, call('ZCARD', ready(q)), call('HGET', LATER, q) or 0, call('HGET', BUSY, q) or 0,
    oldest and string.format('%.0f', oldest) or '' }
end
return done(out)
