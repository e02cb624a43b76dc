-- ARGV: 5 queue, 6 tasks at most, 7 lease, 8 least fence, 9 bytes after which it is enough.
local q, most, span, base, enough = ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7]), ARGV[8], tonumber(ARGV[9])
local out, size, had = {}, 0, false
for _ = 1, most do
  local first = call('ZPOPMIN', ready(q))
  if not first[1] then break end
  had = true
  local e = entry(string.sub(first[1], 17))
  if e and e.s == 'R' then
    e.f, e.s, e.d, e.un, e.ta = next_fence(base, e), 'L', e.d + 1, now + span, now + e.to
    local more = call('HMGET', task(e.id), 'p', 'av')
    call('HSET', task(e.id), 's', 'L', 'f', e.f, 'd', e.d, 'un', e.un, 'ta', e.ta, 'av', '')
    bump(BUSY, q, 1)
    arm(e)
    out[#out + 1] = { e.id, e.f, e.d, more[2] or '', more[1] or '', e.rc and call('HVALS', T .. ':x:' .. e.id) or {} }
    size = size + #(more[1] or '')
    if size >= enough then break end
  end
end
local left = status(q)
if had and left[1] == 0 then call('SREM', READY, q) end
return done({ left[1], left[2], out })
