#!lua
-- The lasting keys: bans, allow entries, places. Each is a hash of fields; what
-- is newer wins, by versions in the history key beside it, which shares the
-- key's slot.
local function sane(key)
  local kind = redis.call('TYPE', key).ok
  if kind ~= 'hash' and kind ~= 'none' then redis.call('DEL', key) end
end

-- expire sets when a key ends, which holds several fields: with the last of
-- them. 0 is never.
local function expire(key, old, at)
  if at == 0 then
    redis.call('PERSIST', key)
  elseif redis.call('HLEN', key) <= 1 then
    redis.call('PEXPIREAT', key, at)
  elseif old ~= -1 then
    redis.call('PEXPIREAT', key, math.max(old, at))
  end
end

-- put field version node value until history forget: 1, or 0 if the store knows
-- something newer, or of the same version by a node with a larger number. No
-- value takes the field away.
local function put()
  local key, past = KEYS[1], KEYS[2]
  local field, version, node = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
  local value, ends = ARGV[5], tonumber(ARGV[6])
  sane(key)
  sane(past)
  local known, by = (redis.call('HGET', past, field) or ''):match('^(%d+) (%d+) ')
  known, by = tonumber(known), tonumber(by)
  if known and (known > version or known == version and by > node) then return 0 end
  if known == version and by == node and value ~= '' then
    -- Told again, perhaps by a node that has not kept the evidence.
    local have = redis.pcall('HGET', key, field)
    if type(have) == 'string' and #have > #value then value = have end
  end
  local old = redis.call('PEXPIRETIME', key)
  if value == '' then
    redis.call('HDEL', key, field)
  else
    redis.call('HSET', key, field, value)
    expire(key, old, ends)
  end
  old = redis.call('PEXPIRETIME', past)
  redis.call('HSET', past, field, ARGV[3] .. ' ' .. ARGV[4] .. ' ' .. ARGV[7])
  expire(past, old, tonumber(ARGV[8]))
  return 1
end

-- place field last until most: 1 if it was news.
local function place()
  local key, field, last, most = KEYS[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[5])
  sane(key)
  local known = tonumber(redis.call('HGET', key, field) or '')
  if known and known > last then return 0 end
  redis.call('HSET', key, field, ARGV[3])
  if redis.call('HLEN', key) > most then
    local all, oldest, at = redis.call('HGETALL', key), nil, nil
    for i = 1, #all, 2 do
      local t = tonumber(all[i + 1]) or 0
      if not at or t < at then oldest, at = all[i], t end
    end
    redis.call('HDEL', key, oldest)
  end
  redis.call('PEXPIREAT', key, math.max(tonumber(ARGV[4]), redis.call('PEXPIRETIME', key)))
  return 1
end

-- beat count: the server's time, and what this node wrote last, which is less
-- than it knows if writes were lost.
local function beat()
  local t = redis.call('TIME')
  local old = redis.pcall('GET', KEYS[1])
  old = type(old) == 'string' and tonumber(old) or 0
  redis.call('SET', KEYS[1], ARGV[2], 'PX', 600000)
  return {t[1] * 1000 + math.floor(t[2] / 1000), old}
end

-- ticket now network known random random every blocked most: draws a ticket of
-- a guarded login's trickle, as trickle.draw does.
local function ticket()
  local key, now, network, known = KEYS[1], tonumber(ARGV[2]), ARGV[3], ARGV[4] == '1'
  local every, blocked = tonumber(ARGV[7]), tonumber(ARGV[8])
  sane(key)
  local n = math.floor(now / every)
  if redis.call('HGET', key, 'interval') ~= tostring(n) then
    local all = redis.call('HGETALL', key)
    for i = 1, #all, 2 do
      if all[i]:sub(1, 7) ~= 'failed:' or now - (tonumber(all[i + 1]) or 0) >= blocked then
        redis.call('HDEL', key, all[i])
      end
    end
    redis.call('HSET', key, 'interval', tostring(n), 'from:0', n * every + math.floor(tonumber(ARGV[5]) * 0.9 * every),
      'from:1', n * every + math.floor(tonumber(ARGV[6]) * 0.9 * every))
    redis.call('PEXPIRE', key, blocked + every)
  end
  local failed = tonumber(redis.call('HGET', key, 'failed:' .. network) or '')
  if failed and now - failed < blocked then return 0 end
  if redis.call('HEXISTS', key, 'last:' .. network) == 1 then return 0 end
  for i = known and 1 or 0, 0, -1 do
    local from = tonumber(redis.call('HGET', key, 'from:' .. i) or '')
    if from and now >= from and redis.call('HSETNX', key, 'taken:' .. i, '1') == 1 then
      redis.call('HSET', key, 'last:' .. network, '1')
      return 1
    end
  end
  return 0
end

-- failed now network most blocked: a ticket was used in vain. Of more than most
-- networks the one that failed first is forgotten, as trickle.fail does.
local function failed()
  local key, most = KEYS[1], tonumber(ARGV[4])
  sane(key)
  if redis.call('HLEN', key) >= most then
    local all, count, oldest, at = redis.call('HGETALL', key), 0, nil, nil
    for i = 1, #all, 2 do
      if all[i]:sub(1, 7) == 'failed:' then
        count = count + 1
        local t = tonumber(all[i + 1]) or 0
        if not at or t < at then oldest, at = all[i], t end
      end
    end
    if count >= most then redis.call('HDEL', key, oldest) end
  end
  redis.call('HSET', key, 'failed:' .. ARGV[3], ARGV[2])
  redis.call('PEXPIRE', key, tonumber(ARGV[5]))
  return 1
end

-- pardon upto networks...: forgets that networks failed, up to a moment; all of
-- them if none is named. What tickets there were in the interval stays.
local function pardon()
  local key, upto, only = KEYS[1], tonumber(ARGV[2]), {}
  sane(key)
  for i = 3, #ARGV do only['failed:' .. ARGV[i]] = true end
  local all = redis.call('HGETALL', key)
  for i = 1, #all, 2 do
    if all[i]:sub(1, 7) == 'failed:' and (#ARGV < 3 or only[all[i]]) and (tonumber(all[i + 1]) or 0) <= upto then
      redis.call('HDEL', key, all[i])
    end
  end
  return 1
end

local steps = {put = put, place = place, beat = beat, ticket = ticket, failed = failed, pardon = pardon}
return steps[ARGV[1]]()
