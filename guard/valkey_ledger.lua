#!lua
-- The shared ledger: what memoryLedger does to an entry, as one atomic step on
-- the server. An entry is a hash: field "s" has its windows, packed; fields
-- "e:<id>" have the evidence of the marks that name that id.
--
-- A window is {rule, good, period, tripped, marks, pending, closed}; a mark is
-- {at, points, value, hard, id}; what is pending is {id, at, points, value,
-- lease}. Times are milliseconds since 1970. `now` is the caller's clock, which
-- he keeps in step with the server's; leases and deadlines are the server's.
local RULE, GOOD, PERIOD, TRIPPED, MARKS, PENDING, CLOSED = 1, 2, 3, 4, 5, 6, 7
local AT, POINTS, VALUE, HARD, ID = 1, 2, 3, 4, 5
local P_ID, P_AT, P_POINTS, P_VALUE, P_LEASE = 1, 2, 3, 4, 5
local CLEARED_KEPT = 16  -- ids remembered after a clear, against a late retry

local bad = 0            -- entries that made no sense and were dropped
local t = redis.call('TIME')
local server = t[1] * 1000 + math.floor(t[2] / 1000)
local entries = {}       -- by key: {windows, cleared, dropped}

local function isMark(m)
  return type(m) == 'table' and type(m[AT]) == 'number' and type(m[POINTS]) == 'number'
    and type(m[VALUE]) == 'number' and type(m[HARD]) == 'number' and type(m[ID]) == 'string'
end

local function isPending(p)
  return type(p) == 'table' and type(p[P_ID]) == 'string' and type(p[P_AT]) == 'number'
    and type(p[P_POINTS]) == 'number' and type(p[P_VALUE]) == 'number' and type(p[P_LEASE]) == 'number'
end

local function isState(s)
  if type(s) ~= 'table' or type(s[1]) ~= 'table' or type(s[2]) ~= 'table' then return false end
  for _, id in ipairs(s[2]) do
    if type(id) ~= 'string' then return false end
  end
  for _, w in ipairs(s[1]) do
    if type(w) ~= 'table' or type(w[RULE]) ~= 'string' or type(w[GOOD]) ~= 'number' or type(w[PERIOD]) ~= 'number'
      or type(w[TRIPPED]) ~= 'number' or type(w[MARKS]) ~= 'table' or type(w[PENDING]) ~= 'table'
      or type(w[CLOSED]) ~= 'number' then
      return false
    end
    for _, m in ipairs(w[MARKS]) do
      if not isMark(m) then return false end
    end
    for _, p in ipairs(w[PENDING]) do
      if not isPending(p) then return false end
    end
  end
  return true
end

local function has(w, value)
  for _, m in ipairs(w[MARKS]) do
    if m[VALUE] == value then return true end
  end
  return false
end

-- insert puts a mark where its time belongs: what was decided while the store
-- was away comes late.
local function insert(w, m)
  local i = #w[MARKS]
  while i > 0 and w[MARKS][i][AT] > m[AT] do i = i - 1 end
  table.insert(w[MARKS], i + 1, m)
end

local function load(key)
  local e = entries[key]
  if e then return e end
  e = {windows = {}, cleared = {}, dropped = {}}
  entries[key] = e
  local raw = redis.pcall('HGET', key, 's')
  if raw == false then return e end
  local ok, state = false, nil
  if type(raw) == 'string' then ok, state = pcall(cmsgpack.unpack, raw) end
  if not ok or not isState(state) then
    bad = bad + 1
    redis.call('DEL', key)
    return e
  end
  e.windows, e.cleared = state[1], state[2]
  -- Whose lease has ended belongs to a node that died: nobody knows what came
  -- of the guess, so it counts.
  for _, w in ipairs(e.windows) do
    for i = #w[PENDING], 1, -1 do
      local p = w[PENDING][i]
      if p[P_LEASE] < server then
        table.remove(w[PENDING], i)
        if p[P_VALUE] == 0 or not has(w, p[P_VALUE]) then
          insert(w, {p[P_AT], p[P_POINTS], p[P_VALUE], 0, p[P_ID]})
        end
      end
    end
  end
  return e
end

local function sum(w)
  local n = 0
  for _, m in ipairs(w[MARKS]) do n = n + m[POINTS] end
  return n
end

local function reserved(w)
  local n, most = 0, {}
  for _, p in ipairs(w[PENDING]) do
    local v = p[P_VALUE]
    if v == 0 then
      n = n + p[P_POINTS]
    elseif not has(w, v) then
      n = n + math.max(p[P_POINTS] - (most[v] or 0), 0)
      most[v] = math.max(p[P_POINTS], most[v] or 0)
    end
  end
  return n
end

local function drop(e, w, i)
  table.insert(e.dropped, w[MARKS][i][ID])
  table.remove(w[MARKS], i)
end

-- expire drops what is a period old. A mark from the future, which a clock set
-- back can leave, is taken as of now.
local function expire(e, w, now)
  local old = 0
  while w[MARKS][old + 1] and w[MARKS][old + 1][AT] <= now - w[PERIOD] do
    old = old + 1
    table.insert(e.dropped, w[MARKS][old][ID])
  end
  if old > 0 then
    local rest = {}
    for i = old + 1, #w[MARKS] do rest[#rest + 1] = w[MARKS][i] end
    w[MARKS] = rest
  end
  for i = #w[MARKS], 1, -1 do
    if w[MARKS][i][AT] <= now then break end
    w[MARKS][i][AT] = now
  end
end

-- window gives a claim's window, up to date.
local function window(c, now)
  local e = load(c.key)
  for _, w in ipairs(e.windows) do
    if w[RULE] == c.rule and w[GOOD] == c.good then
      w[PERIOD] = c.period
      expire(e, w, now)
      if sum(w) < c.limit then w[TRIPPED] = 0 end
      return e, w
    end
  end
  local w = {c.rule, c.good, c.period, 0, {}, {}, 0}
  table.insert(e.windows, w)
  return e, w
end

-- save writes an entry back, without the windows that are empty.
local function save(key, now, lease)
  local e, kept, ttl = entries[key], {}, 0
  local used = {}
  for _, w in ipairs(e.windows) do
    if #w[MARKS] > 0 or #w[PENDING] > 0 or w[CLOSED] > server then
      table.insert(kept, w)
      for _, m in ipairs(w[MARKS]) do
        used[m[ID]] = true
        ttl = math.max(ttl, m[AT] + w[PERIOD] - now)
      end
      if #w[PENDING] > 0 then ttl = math.max(ttl, w[PERIOD] + lease) end
    end
  end
  if #kept == 0 and #e.cleared == 0 then
    redis.call('DEL', key)
    return
  end
  redis.call('HSET', key, 's', cmsgpack.pack({kept, e.cleared}))
  for _, id in ipairs(e.dropped) do
    if not used[id] then redis.call('HDEL', key, 'e:' .. id) end
  end
  redis.call('PEXPIRE', key, ttl + 60000)
end

-- claims reads the claims that begin at an argument, nine words each.
local function claims(from)
  local list = {}
  for i = from, #ARGV, 9 do
    local flags = ARGV[i + 4]
    table.insert(list, {
      key = KEYS[tonumber(ARGV[i])], rule = ARGV[i + 1], points = tonumber(ARGV[i + 2]), value = tonumber(ARGV[i + 3]),
      good = flags:find('g') and 1 or 0, hard = flags:find('h') and 1 or 0, yields = flags:find('y') ~= nil,
      share = flags:find('s') ~= nil,
      limit = tonumber(ARGV[i + 5]), period = tonumber(ARGV[i + 6]), keep = tonumber(ARGV[i + 7]), hold = ARGV[i + 8],
    })
  end
  return list
end

local GRANTED, FULL, OVER, LATE = 0, 1, 2, 3

-- room says whether another reservation fits, as window.room does. A window is
-- closed for a while after its sentence: not all nodes have heard of that yet,
-- and those who ask now must wait until theirs has.
local function room(w, c)
  local settled = sum(w)
  if w[CLOSED] > server then return c.yields and OVER or FULL end
  if settled >= c.limit then return OVER end
  if c.value ~= 0 then
    if has(w, c.value) then return GRANTED end
    for _, p in ipairs(w[PENDING]) do
      if p[P_VALUE] == c.value then return GRANTED end
    end
  end
  if settled + reserved(w) >= c.limit then return FULL end
  return GRANTED
end

-- reserve now deadline lease dry claims...: all or none. It does nothing
-- from its deadline on: who asked has decided alone by then.
local function reserve()
  local now, deadline, lease, dry = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5] == '1'
  if server >= deadline then return {LATE, 0, bad} end
  local list = claims(6)
  for i, c in ipairs(list) do
    local _, w = window(c, now)
    local r = room(w, c)
    if r == FULL or (r == OVER and not c.yields) then return {r, i - 1, bad} end
  end
  if dry then return {GRANTED, 0, bad} end
  for _, c in ipairs(list) do
    local _, w = window(c, now)
    table.insert(w[PENDING], {c.hold, now, c.points, c.value, server + lease})
  end
  for key in pairs(entries) do save(key, now, lease) end
  return {GRANTED, 0, bad}
end

-- release takes back the reservation that the claim holds; without a name,
-- any like it.
local function release(w, c)
  for i, p in ipairs(w[PENDING]) do
    if (c.hold ~= '' and p[P_ID] == c.hold and p[P_VALUE] == c.value)
      or (c.hold == '' and p[P_VALUE] == c.value and (c.value ~= 0 or p[P_POINTS] == c.points)) then
      table.remove(w[PENDING], i)
      return
    end
  end
end

-- trips tells whether a window has reached its limit, as entry.trips does.
local function trips(e, w, c, now, needed, untilTimes)
  local n = sum(w)
  if n < c.limit then return false end
  if not c.share or n >= untilTimes * c.limit then return true end
  local hard, soft, good = 0, 0, 0
  for _, m in ipairs(w[MARKS]) do
    if m[HARD] == 1 then hard = hard + m[POINTS] else soft = soft + 1 end
  end
  if hard >= c.limit then return true end
  for _, g in ipairs(e.windows) do
    if g[GOOD] == 1 and g[RULE] == c.rule then
      expire(e, g, now)
      good = #g[MARKS]
    end
  end
  return soft >= needed * (soft + good)
end

-- charge adds the claim's mark, unless the same step has added it before, and
-- tells whether it has: a step is repeated if its answer was lost.
local function charge(e, w, c, now, id)
  for _, m in ipairs(w[MARKS]) do
    if m[ID] == id and m[VALUE] == c.value then return true end
  end
  for _, known in ipairs(e.cleared) do
    if known == id then return true end
  end
  local at = now
  if c.value ~= 0 then
    for i, m in ipairs(w[MARKS]) do
      if m[VALUE] == c.value then
        at = math.max(at, m[AT])
        drop(e, w, i)
        break
      end
    end
  end
  if #w[MARKS] >= c.keep then drop(e, w, 1) end
  insert(w, {at, c.points, c.value, c.hard, id})
  return false
end

-- settle now at id lease release charge evidence shareNeeded shareUntil claims...
-- now is the time, at the time of what is charged: the same but for what comes late.
local function settle()
  local now, at, id, lease = tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[5])
  local evidence, needed, untilTimes = ARGV[8], tonumber(ARGV[9]), tonumber(ARGV[10])
  local list = claims(11)
  if ARGV[6] == '1' then
    for _, c in ipairs(list) do
      local _, w = window(c, now)
      release(w, c)
    end
  end
  local out = {bad}
  local evident = {}
  if ARGV[7] == '1' then
    for _, c in ipairs(list) do
      local e, w = window(c, now)
      local again = at > now - c.period and charge(e, w, c, at, id)
      local told = 0
      if c.good == 0 then
        if (again and w[TRIPPED] == 1) or w[TRIPPED] == 0 and trips(e, w, c, now, needed, untilTimes) then
          w[TRIPPED], told = 1, 1
        end
        evident[c.key] = true
      end
      table.insert(out, sum(w))
      table.insert(out, told)
    end
  end
  for key in pairs(entries) do save(key, now, lease) end
  if evidence ~= '' then
    for key in pairs(evident) do
      if redis.call('EXISTS', key) == 1 then redis.call('HSET', key, 'e:' .. id, evidence) end
    end
  end
  out[1] = bad
  return out
end

-- flat gives a window for a reply: its marks and what is pending in a row.
local function flat(w)
  local marks, pending = {}, {}
  for _, m in ipairs(w[MARKS]) do
    for f = 1, 5 do table.insert(marks, m[f]) end
  end
  for _, p in ipairs(w[PENDING]) do
    for f = 1, 5 do table.insert(pending, p[f]) end
  end
  return {w[RULE], w[GOOD], w[PERIOD], marks, pending}
end

-- read now: the windows of a key, and all evidence.
local function read()
  local key, now = KEYS[1], tonumber(ARGV[2])
  local e = load(key)
  if #e.windows == 0 then return {bad, {}, {}} end
  local windows = {}
  for _, w in ipairs(e.windows) do
    expire(e, w, now)
    table.insert(windows, flat(w))
  end
  save(key, now, tonumber(ARGV[3]))
  local fields = redis.call('HGETALL', key)
  return {bad, windows, fields}
end

-- clear now lease upto close rules...: forgets the marks of some rules that are
-- not younger than upto, and tells them. It closes their windows for a while.
local function clear()
  local key, now, upto = KEYS[1], tonumber(ARGV[2]), tonumber(ARGV[4])
  local closed = tonumber(ARGV[5]) > 0 and server + tonumber(ARGV[5]) or 0
  local e = load(key)
  if #e.windows == 0 then return {bad, {}, {}} end
  local fields = redis.call('HGETALL', key)
  local gone, changed = {}, false
  for _, w in ipairs(e.windows) do
    for i = 6, #ARGV do
      if w[RULE] == ARGV[i] and w[CLOSED] > 0 then w[CLOSED], changed = closed, true end
      if w[RULE] == ARGV[i] and #w[MARKS] > 0 and w[MARKS][1][AT] <= upto then
        local kept = {}
        local old = {w[RULE], w[GOOD], w[PERIOD], 0, {}, {}, 0}
        for _, m in ipairs(w[MARKS]) do
          if m[AT] > upto then
            table.insert(kept, m)
          else
            table.insert(old[MARKS], m)
            table.insert(e.dropped, m[ID])
            if w[GOOD] == 0 then table.insert(e.cleared, m[ID]) end
          end
        end
        table.insert(gone, flat(old))
        w[MARKS], w[TRIPPED], w[CLOSED] = kept, 0, closed
        break
      end
    end
  end
  while #e.cleared > CLEARED_KEPT do table.remove(e.cleared, 1) end
  if #gone > 0 or changed then save(key, now, tonumber(ARGV[3])) end
  return {bad, gone, fields}
end

-- renew lease holds...: this node is still alive, and so are these of its
-- reservations.
local function renew()
  local lease, e = tonumber(ARGV[2]), load(KEYS[1])
  local mine, found = {}, false
  for i = 3, #ARGV do mine[ARGV[i]] = true end
  for _, w in ipairs(e.windows) do
    for _, p in ipairs(w[PENDING]) do
      if mine[p[P_ID]] then p[P_LEASE], found = server + lease, true end
    end
  end
  if found then save(KEYS[1], server, lease) end
  return {bad}
end

local steps = {reserve = reserve, settle = settle, read = read, clear = clear, renew = renew}
return steps[ARGV[1]]()
