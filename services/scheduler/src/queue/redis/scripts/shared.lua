-- What all scripts of the queue begin with. One namespace's keys have one hash tag, T, so that a script touches one slot.
-- ARGV: 1 T, 2 now, 3 who asks, 4 the generation to begin where there is none ('' : do not), then what the script itself takes.
--
-- T:meta   gen, ops:S (scripts run for the scheduler S), fence (last given), seq (order of arrival), count (of tasks)
-- T:t:ID   a task: q queue, s state (D delayed, R ready, L leased, S settled), a attempt, f fence, fl fence of the attempt before, lf fence
--          that the run has seen, d deliveries,
--          sc score, m member of the ready set, ra ready at, to timeout, dl deadline, un end of the lease or hold, ta end of the timeout,
--          si since, p the task as bytes, av worker to avoid, rc 1 when it has records
-- T:x:ID   acknowledged records by index                         T:e:ID  attempt whose end is in the journal since a short while
-- T:r:Q    ready tasks of a queue by score, then by arrival      T:rq     queues that have some
-- T:due    tasks by when they must be looked at                  T:held   settled tasks by when whoever settled them must have gone
-- T:later, T:busy   delayed and leased tasks by queue            T:marks  deliveries that workers had when everything was lost
local T, now, me, token = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]
local META, DUE, HELD, READY, LATER, BUSY = KEYS[1], T .. ':due', T .. ':held', T .. ':rq', T .. ':later', T .. ':busy'
local NONE = '00000000000000000000'
local call = redis.call

local meta = call('HMGET', META, 'gen', 'fence', 'seq', 'count')
local gen = meta[1] or ''
local fence, seq, count = meta[2] or NONE, tonumber(meta[3] or 0), tonumber(meta[4] or 0)
local old_fence, old_seq, old_count = fence, seq, count
if gen == '' and token ~= '' then
  gen = token
  call('HSET', META, 'gen', gen)
end
local ops = gen == '' and 0 or call('HINCRBY', META, 'ops:' .. me, 1)

-- Fences have 64 bits, Lua's numbers 53: they are texts of 20 digits, which compare as numbers do.
local function above(f)
  local hi, lo = tonumber(string.sub(f, 1, 10)), tonumber(string.sub(f, 11, 20)) + 1
  if lo >= 1e10 then hi, lo = hi + 1, 0 end
  return string.format('%010.0f%010.0f', hi, lo)
end

local function later(a, b)
  if a < b then return b end
  return a
end

local function next_fence(base, e)
  local floor = later(later(e.f, e.fl), e.lf)
  fence = later(base, later(above(fence), above(floor)))
  return fence
end

local function task(id) return T .. ':t:' .. id end
local function ready(q) return T .. ':r:' .. q end

local function entry(id)
  local v = call('HMGET', task(id), 'q', 's', 'a', 'f', 'fl', 'd', 'sc', 'm', 'ra', 'to', 'dl', 'un', 'ta', 'rc', 'lf')
  if not v[1] then return nil end
  return { id = id, q = v[1], s = v[2], a = tonumber(v[3]), f = v[4], fl = v[5], d = tonumber(v[6]), sc = v[7], m = v[8],
    ra = tonumber(v[9]), to = tonumber(v[10]), dl = tonumber(v[11] or ''), un = tonumber(v[12]), ta = tonumber(v[13]), rc = v[14],
    lf = v[15] or NONE }
end

-- Counts by queue are gathered and written once.
local counts = { [LATER] = {}, [BUSY] = {} }
local function bump(which, q, n) counts[which][q] = (counts[which][q] or 0) + n end

-- Queues that had nothing ready before.
local fresh = {}

local function due(e)
  local at
  if e.s == 'S' then return nil end
  if e.s == 'D' then at = e.ra elseif e.s == 'L' then at = math.min(e.un, e.ta) end
  if e.dl and (not at or e.dl < at) then at = e.dl end
  return at
end

local function arm(e)
  local at = due(e)
  if at then call('ZADD', DUE, at, e.id) elseif not e.new then call('ZREM', DUE, e.id) end
end

-- Counts a task out of its state.
local function leave(e)
  if e.s == 'R' then
    call('ZREM', ready(e.q), e.m)
    if call('EXISTS', ready(e.q)) == 0 then call('SREM', READY, e.q) end
  elseif e.s == 'D' then bump(LATER, e.q, -1)
  elseif e.s == 'L' then bump(BUSY, e.q, -1)
  else call('ZREM', HELD, e.id) end
end

-- Counts it into its state, and sets its timer.
local function enter(e)
  if e.s == 'R' then
    if call('EXISTS', ready(e.q)) == 0 then
      fresh[e.q] = true
      call('SADD', READY, e.q)
    end
    call('ZADD', ready(e.q), e.sc, e.m)
  elseif e.s == 'D' then bump(LATER, e.q, 1)
  elseif e.s == 'L' then bump(BUSY, e.q, 1)
  else call('ZADD', HELD, e.un, e.id) end
  arm(e)
end

-- To another state; the other fields were set before.
local function turn(e, s)
  leave(e)
  e.s = s
  enter(e)
  call('HSET', task(e.id), 's', s, 'f', e.f, 'd', e.d, 'un', e.un, 'ta', e.ta)
end

local function lease(e, span)
  e.un, e.ta = now + span, now + e.to
  turn(e, 'L')
end

local function settle(e, hold)
  e.un = now + hold
  turn(e, 'S')
end

local function forget(e)
  leave(e)
  call('ZREM', DUE, e.id)
  call('UNLINK', task(e.id))
  if e.rc then call('UNLINK', T .. ':x:' .. e.id) end
  count = count - 1
end

local function status(q)
  local first = call('ZRANGE', ready(q), 0, 0, 'WITHSCORES')
  return { call('ZCARD', ready(q)), first[2] or '' }
end

local function done(reply)
  for which, queues in pairs(counts) do
    for q, n in pairs(queues) do
      if n ~= 0 and call('HINCRBY', which, q, n) <= 0 then call('HDEL', which, q) end
    end
  end
  if fence ~= old_fence or seq ~= old_seq or count ~= old_count then
    call('HSET', META, 'fence', fence, 'seq', seq, 'count', count)
  end
  -- Other schedulers may have workers for what has become ready.
  local prefix, namespace = string.match(T, '^{(.*):([^:]*)}$')
  for q in pairs(fresh) do call('PUBLISH', prefix .. ':signals', me .. ' ready ' .. namespace .. '/' .. q) end
  local first = call('ZRANGE', DUE, 0, 0, 'WITHSCORES')
  return { gen, ops, count, first[2] or '', reply }
end
