#!lua name=@LIBRARY@

-- Every change that Throng makes in Redis and that is more than one command. Each function compares before it
-- writes, so that a call whose answer was lost may be repeated; and it checks all before it writes anything,
-- because nothing is taken back after an error. Numbers stay below 2^53.

local function text(number)
  return string.format('%.0f', number)
end

local function now()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Hands on a range of a list in slices that the Lua stack has room for.
local function each_slice(list, first, last, act)
  for from = first, last, 500 do
    act(unpack(list, from, math.min(from + 499, last)))
  end
end

-- KEYS the store's hash · ARGV format, identity
local function found(keys, args)
  local have = redis.call('HMGET', keys[1], 'format', 'identity')
  if not have[1] then
    redis.call('HSET', keys[1], 'format', args[1], 'identity', args[2])
    have = args
  end
  return { have[1], have[2] }
end

-- Takes the lease of a lane where it is free, over, or already the caller's.
-- KEYS the lane's hash · ARGV format, identity, owner, token of this acquisition, milliseconds
local function acquire(keys, args)
  local lane = keys[1]
  local format, identity, owner, token, ends, epoch, attempt, past = unpack(redis.call(
    'HMGET', lane, 'format', 'identity', 'owner', 'token', 'until', 'epoch', 'attempt', 'past'))
  if format and format ~= args[1] then return { 'FORMAT', format } end
  if identity and identity ~= args[2] then return { 'FOREIGN', '' } end
  if token and token == args[4] then return { 'OK', epoch } end
  local time = now()
  if ends and tonumber(ends) > time and owner ~= args[3] then
    return { 'TAKEN', text(tonumber(ends) - time) }
  end
  local lines = { }
  if token then
    -- The last owners and their last attempts, the latest first: what they may still leave behind is swept.
    lines[1] = epoch .. ' ' .. token .. ' ' .. (attempt or '0')
    for line in string.gmatch(past or '', '[^\n]+') do
      if #lines < 8 then lines[#lines + 1] = line end
    end
  end
  epoch = text((tonumber(epoch or '0')) + 1)
  redis.call('HSET', lane, 'format', args[1], 'identity', args[2], 'owner', args[3], 'token', args[4],
    'until', text(time + args[5]), 'epoch', epoch, 'attempt', '0', 'past', table.concat(lines, '\n'))
  redis.call('HSETNX', lane, 'seq', '0')
  return { 'OK', epoch }
end

-- KEYS the lane's hash · ARGV token, milliseconds from now; 0 gives the lease up
local function renew(keys, args)
  if redis.call('HGET', keys[1], 'token') ~= args[1] then return 'FENCED' end
  redis.call('HSET', keys[1], 'until', text(now() + args[2]))
  return 'OK'
end

-- Makes visible what was written before: the one step of a commit.
-- KEYS the lane's hash · ARGV token, number of the change, number of the attempt, how many fields go, these
-- fields, then fields and values
local function commit(keys, args)
  local lane = keys[1]
  local token, seq, attempt = unpack(redis.call('HMGET', lane, 'token', 'seq', 'attempt'))
  if token ~= args[1] then return { 'FENCED' } end
  if seq == args[2] and attempt == args[3] then return { 'OK' } end
  if tonumber(seq) + 1 ~= tonumber(args[2]) then return { 'ELSEWHERE', seq } end
  local first = 5 + args[4]
  each_slice(args, 5, first - 1, function(...) redis.call('HDEL', lane, ...) end)
  each_slice(args, first, #args, function(...) redis.call('HSET', lane, ...) end)
  redis.call('HSET', lane, 'seq', args[2], 'attempt', args[3])
  return { 'OK' }
end

-- Appends frames of one sender in one go. What a sender's number was given to is given to it once; a number
-- below its last one was taken earlier.
-- KEYS stream, log · ARGV sender, its number, then the count and payload of each frame
local function append(keys, args)
  local log, sender = keys[2], 'n:' .. args[1]
  if #args < 4 then return 'NOTHING' end
  local ends, next, mark = unpack(redis.call('HMGET', log, 'end', 'next', sender))
  local time = now()
  if mark then
    local number, at, record = string.match(mark, '^(%d+) (%d+) (%d+) ')
    if tonumber(number) >= tonumber(args[2]) then return { 'AGAIN', at, record } end
  else
    -- Nobody repeats a call after a week.
    local all = redis.call('HGETALL', log)
    for at = 1, #all, 2 do
      local seen = string.match(all[at], '^n:%.') and string.match(all[at + 1], ' (%d+)$')
      if seen and tonumber(seen) + 604800000 < time then redis.call('HDEL', log, all[at]) end
    end
  end
  ends, next = tonumber(ends or '0'), tonumber(next or '0')
  for at = 3, #args, 2 do
    ends = ends + #args[at + 1]
    next = next + args[at]
    redis.call('XADD', keys[1], text(ends) .. '-' .. text(next), 'c', args[at], 'p', args[at + 1])
  end
  redis.call('HSET', log, 'end', text(ends), 'next', text(next), sender,
    args[2] .. ' ' .. text(ends) .. ' ' .. text(next) .. ' ' .. text(time))
  return { 'OK', text(ends), text(next) }
end

-- Gives up frames that end at or before a position and before the checkpoint, some at a time.
-- KEYS stream, log, the lane's hash · ARGV position
local function release(keys, args)
  local to = math.min(tonumber(args[1]), tonumber(redis.call('HGET', keys[3], 'position') or '0'))
  local id = text(to + 1) .. '-0'
  local gone = redis.call('XTRIM', keys[1], 'MINID', '~', id, 'LIMIT', 10000)
  local more = gone > 0
  if not more then gone = redis.call('XTRIM', keys[1], 'MINID', '=', id) end
  if gone > 0 then
    local first = redis.call('XRANGE', keys[1], '-', '+', 'COUNT', 1)[1]
    local begin = first and text(string.match(first[1], '^%d+') - #first[2][4])
      or redis.call('HGET', keys[2], 'end')
    redis.call('HSET', keys[2], 'begin', begin)
    redis.call('HINCRBY', keys[2], 'released', gone)
  end
  return more and 1 or 0
end

-- KEYS stream, log
local function balance(keys, args)
  local released = redis.call('HGET', keys[2], 'released') or '0'
  if redis.call('EXISTS', keys[1]) == 0 then return { '0', released, '0' } end
  local info = redis.call('XINFO', 'STREAM', keys[1])
  local found = { }
  for at = 1, #info, 2 do found[info[at]] = info[at + 1] end
  return { text(found['entries-added']), released, text(found['length']) }
end

-- What frees memory, or holds on to what is there, works when there is none left.
local function register(name, callback, flags)
  redis.register_function{ function_name = '@LIBRARY@_' .. name, callback = callback, flags = flags or { } }
end

register('found', found)
register('acquire', acquire, { 'allow-oom' })
register('renew', renew, { 'allow-oom' })
register('commit', commit)
register('append', append)
register('release', release, { 'allow-oom' })
register('balance', balance, { 'no-writes' })
