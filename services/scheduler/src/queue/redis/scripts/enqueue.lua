-- ARGV: 5 room for tasks of the namespace within all, 6 tasks the namespace may have, 7 lease, then of each task
-- id, queue, attempt, bytes, since, score, ready at, timeout, deadline or '', fence that a worker holds or '', fence that the run has seen,
-- 1 where it may have been dispatched before.
local room, most, span = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local marks = call('EXISTS', T .. ':marks') == 1
local out, i = {}, 8

-- The fence under which a worker has had it since before everything was lost.
local function marked(id, attempt)
  local mark = marks and call('HGET', T .. ':marks', id)
  if not mark then return '' end
  local a, f = string.match(mark, '^(%d+):(%d+)$')
  return a == attempt and f or ''
end

while ARGV[i] do
  local id, a = ARGV[i], tonumber(ARGV[i + 2])
  local old = entry(id)
  -- It may have ended while this dispatch of it was under way.
  local ended = ARGV[i + 11] == '1' and tonumber(call('GET', T .. ':e:' .. id) or '')
  if (old and old.a >= a) or (ended and ended >= a) then
    out[#out + 1] = 'I'
  else
    local floor, how = NONE, 'A'
    if old then
      floor, how = later(old.f, old.fl), 'P' .. (old.s == 'L' and old.f or '')
      forget(old)
    end
    if count >= room then
      out[#out + 1] = 'FA'
    elseif count >= most then
      out[#out + 1] = 'FN'
    else
      seq, count = seq + 1, count + 1
      local held = ARGV[i + 9]
      if held == '' then held = marked(id, ARGV[i + 2]) end
      local e = { new = true, id = id, q = ARGV[i + 1], sc = ARGV[i + 5], m = string.format('%016.0f', seq) .. id, f = NONE, d = 0,
        ra = tonumber(ARGV[i + 6]), to = tonumber(ARGV[i + 7]), dl = tonumber(ARGV[i + 8]), un = 0, ta = 0, lf = ARGV[i + 10] }
      if held ~= '' and held > floor and held >= e.lf then
        e.s, e.f, e.d, e.un, e.ta = 'L', held, 1, now + span, now + e.to
      elseif e.ra > now then e.s = 'D'
      else e.s = 'R' end
      call('HSET', task(id), 'q', e.q, 's', e.s, 'a', a, 'f', e.f, 'fl', floor, 'd', e.d, 'sc', e.sc, 'm', e.m, 'ra', e.ra, 'to', e.to,
        'dl', ARGV[i + 8], 'un', e.un, 'ta', e.ta, 'si', ARGV[i + 4], 'lf', e.lf, 'p', ARGV[i + 3])
      enter(e)
      out[#out + 1] = how
    end
  end
  i = i + 12
end
return done(out)
