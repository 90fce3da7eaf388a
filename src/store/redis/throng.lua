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

-- The process that this is: another one after every restart and every failover, and where a slot has moved to.
-- Nil where it cannot be asked for.
local this_run
local function run()
  if not this_run then
    local info = redis.pcall('INFO', 'server')
    this_run = type(info) == 'string' and string.match(info, 'run_id:(%x+)') or nil
  end
  return this_run
end

-- Hands on a range of a list in slices that the Lua stack has room for.
local function each_slice(list, first, last, act)
  for from = first, last, 500 do
    act(unpack(list, from, math.min(from + 499, last)))
  end
end

-- KEYS the store's hash · ARGV format, identity, number of lanes, a name that no other store has: one that was
-- moved has another than the one that it came from
local function found(keys, args)
  if redis.call('HEXISTS', keys[1], 'format') == 0 then
    redis.call('HSET', keys[1], 'format', args[1], 'identity', args[2], 'lanes', args[3])
  end
  redis.call('HSETNX', keys[1], 'instance', args[4])
  local have = redis.call('HMGET', keys[1], 'format', 'identity', 'lanes', 'instance', 'unfinished')
  return { have[1], have[2], have[3], have[4], have[5] or '' }
end

-- Makes the store that another is to be moved to, or begins such a move anew.
-- KEYS the store's hash · ARGV format, identity, number of lanes, what is moved
local function receive(keys, args)
  local format, identity, unfinished = unpack(redis.call('HMGET', keys[1], 'format', 'identity', 'unfinished'))
  if format and (format ~= args[1] or identity ~= args[2] or not unfinished) then return 'THERE' end
  redis.call('HSET', keys[1], 'format', args[1], 'identity', args[2], 'lanes', args[3], 'unfinished', args[4])
  return 'OK'
end

-- Makes the journal of a lane go on where another has ended; where it has begun there already it is done.
-- KEYS the lane's log · ARGV end, number of the next record
local function begin(keys, args)
  local ends, next = unpack(redis.call('HMGET', keys[1], 'end', 'next'))
  if not ends then
    redis.call('HSET', keys[1], 'end', args[1], 'next', args[2], 'begin', args[1])
    return 'OK'
  end
  return ends == args[1] and next == args[2] and 'OK' or 'THERE'
end

-- Puts a value in the place of another, where that is what stands. Where the new one stands already it is done.
-- KEYS the shelf · ARGV name, whether a value is expected, the value, whether there is a new one, the new one
local function swap(keys, args)
  local have = redis.call('HGET', keys[1], args[1])
  local expected, new = args[2] == '1' and args[3], args[4] == '1' and args[5]
  if have == new then return { 'OK' } end
  if have ~= expected then return { 'OTHER', have } end
  if new then
    redis.call('HSET', keys[1], args[1], new)
  else
    redis.call('HDEL', keys[1], args[1])
  end
  return { 'OK' }
end

-- Notes what a node tells, when, and how far its clock is ahead. Where there is no room for a new one, those give
-- way that hold nothing back and were not heard for long.
-- KEYS the nodes · ARGV id, its clock, its mark or -, the node, how many nodes there may be, milliseconds
local function beat(keys, args)
  local time = now()
  if redis.call('HEXISTS', keys[1], args[1]) == 0 and #redis.call('HKEYS', keys[1]) >= tonumber(args[5]) then
    local all, left = redis.call('HGETALL', keys[1]), 0
    for at = 1, #all, 2 do
      local heard = string.match(all[at + 1], '^(%d+) %-?%d+ %- ')
      if heard and tonumber(heard) + args[6] <= time then
        redis.call('HDEL', keys[1], all[at])
      else
        left = left + 1
      end
    end
    if left >= tonumber(args[5]) then return 'CROWDED' end
  end
  redis.call('HSET', keys[1], args[1],
    text(time) .. ' ' .. text(args[2] - time) .. ' ' .. args[3] .. ' ' .. args[4])
  return 'OK'
end

-- Strikes a node off that was not heard of since.
-- KEYS the nodes · ARGV id, when it was heard last
local function strike(keys, args)
  local heard = string.match(redis.call('HGET', keys[1], args[1]) or '', '^(%d+) ')
  if heard ~= args[2] then return 0 end
  return redis.call('HDEL', keys[1], args[1])
end

-- KEYS the nodes
local function nodes(keys, args)
  return { text(now()), redis.call('HGETALL', keys[1]) }
end

-- Takes the lead where it is free, over, or already the caller's; a term begins where it was over.
-- KEYS the lead · ARGV id, milliseconds
local function lead(keys, args)
  local id, term, ends = unpack(redis.call('HMGET', keys[1], 'id', 'term', 'until'))
  local time = now()
  local held = ends and tonumber(ends) > time
  if held and id ~= args[1] then return false end
  if not held then term = text(math.max(tonumber(term or '0') + 1, time)) end
  redis.call('HSET', keys[1], 'id', args[1], 'term', term, 'until', text(time + args[2]))
  return term
end

-- KEYS the lead
local function leader(keys, args)
  local id, term, ends = unpack(redis.call('HMGET', keys[1], 'id', 'term', 'until'))
  if not ends or tonumber(ends) <= now() then return false end
  return { id, term }
end

-- KEYS the lead · ARGV id
local function resign(keys, args)
  if redis.call('HGET', keys[1], 'id') == args[1] then redis.call('HSET', keys[1], 'until', '0') end
  return 'OK'
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

-- Keeps what a lane holds, and its stream, for a reader who does not own it: the owner goes on, and gives nothing up
-- that the reader may come to, until it lets go or is not heard of for so long.
-- KEYS the lane's hash · ARGV reader, milliseconds from now; 0 lets go, whether it has to hold it already
local function pin(keys, args)
  local format, reader, ends = unpack(redis.call('HMGET', keys[1], 'format', 'reader', 'read'))
  if not format then return { 'NONE' } end
  local time = now()
  local held = ends and tonumber(ends) > time
  if held and reader ~= args[1] then return { 'TAKEN', reader, text(tonumber(ends) - time) } end
  if args[3] == '1' and not held then return { 'OVER' } end
  redis.call('HSET', keys[1], 'reader', args[1], 'read', text(time + args[2]))
  return { 'OK' }
end

local function is_read(lane)
  local ends = redis.call('HGET', lane, 'read')
  return ends and tonumber(ends) > now()
end

-- Whether a lane's journal has, or had, all records before one of this number. Where a failover has lost some, who has
-- read them is ahead of it.
local function has_all_before(log, number)
  local next, gaps = unpack(redis.call('HMGET', log, 'next', 'gaps'))
  if not next then return true end
  if number > tonumber(next) then return false end
  for first, to in string.gmatch(gaps or '', '(%d+) (%d+)') do
    if number > tonumber(first) and number < tonumber(to) then return false end
  end
  return true
end

-- Makes visible what was written before: the one step of a commit. Tells whether what it replaced has to stay.
-- KEYS the lane's hash, its log · ARGV token, number of the change, number of the attempt, the number of the record
-- after the last that was folded or -, how many fields go, these fields, then fields and values
local function commit(keys, args)
  local lane = keys[1]
  local token, seq, attempt = unpack(redis.call('HMGET', lane, 'token', 'seq', 'attempt'))
  if token ~= args[1] then return { 'FENCED' } end
  local stays = is_read(lane) and '1' or '0'
  if seq == args[2] and attempt == args[3] then return { 'OK', stays } end
  if tonumber(seq) + 1 ~= tonumber(args[2]) then return { 'ELSEWHERE', seq } end
  if args[4] ~= '-' and not has_all_before(keys[2], tonumber(args[4])) then return { 'AHEAD' } end
  local first = 6 + args[5]
  each_slice(args, 6, first - 1, function(...) redis.call('HDEL', lane, ...) end)
  each_slice(args, first, #args, function(...) redis.call('HSET', lane, ...) end)
  redis.call('HSET', lane, 'seq', args[2], 'attempt', args[3])
  return { 'OK', stays }
end

-- Changes lists, one step of it: some buckets, and what lists there are after that.
-- KEYS the lane's hash, buckets · ARGV token, what lists there are before and after, the names or nothing, the round
-- whose keys are to be deleted or -, whether these buckets are deleted, then for each bucket: how many lists, and
-- their fields and values; an empty value deletes one
local function list(keys, args)
  local lane = keys[1]
  local token, have = unpack(redis.call('HMGET', lane, 'token', 'look'))
  if token ~= args[1] then return 'FENCED' end
  have = have or ''
  if args[2] ~= args[3] and have == args[3] then return 'OK' end
  if have ~= args[2] then return 'CHANGED' end
  local at = 7
  for number = 2, #keys do
    local last = at + 2 * args[at]
    local set, gone = { }, { }
    for field = at + 1, last, 2 do
      if args[field + 1] == '' then
        gone[#gone + 1] = args[field]
      else
        set[#set + 1] = args[field]
        set[#set + 1] = args[field + 1]
      end
    end
    if args[6] == '1' then redis.call('UNLINK', keys[number]) end
    each_slice(gone, 1, #gone, function(...) redis.call('HDEL', keys[number], ...) end)
    each_slice(set, 1, #set, function(...) redis.call('HSET', keys[number], ...) end)
    at = last + 1
  end
  if args[3] ~= '' then redis.call('HSET', lane, 'look', args[3]) end
  if args[4] ~= '' then redis.call('HSET', lane, 'look.names', args[4]) end
  if args[5] == '' then
    redis.call('HDEL', lane, 'look.gone')
  elseif args[5] ~= '-' then
    redis.call('HSET', lane, 'look.gone', args[5])
  end
  return 'OK'
end

-- KEYS the lane's hash, a bucket · ARGV field, the version of the names that the caller has
local function look(keys, args)
  local seen = redis.call('HGET', keys[1], 'look')
  if not seen then return { '', '', '' } end
  local names = ''
  if string.match(seen, '%d+$') ~= args[2] then names = redis.call('HGET', keys[1], 'look.names') or '' end
  return { seen, names, redis.call('HGET', keys[2], args[1]) or '' }
end

-- The number of a lane's next record. Where another process appended last, it may have taken records that are not
-- here, for a failover has lost them; they may be known elsewhere by their numbers, as message ids are. No record
-- gets such a number again: those that come next are numbered by the clock, a hundred to the millisecond, and what
-- lies between is on record as a gap.
-- log · its next record's number and who appended last · milliseconds
local function turn(log, next, last_run, time)
  local this = run()
  if not next or not this or last_run == this then return next, this end
  if not last_run then
    redis.call('HSET', log, 'run', this)
    return next, this
  end
  local lines = { text(next) .. ' ' .. text(math.max(next + 1, time * 100)) }
  for line in string.gmatch(redis.call('HGET', log, 'gaps') or '', '[^\n]+') do
    if #lines < 64 then lines[#lines + 1] = line end
  end
  next = math.max(next + 1, time * 100)
  redis.call('HSET', log, 'next', text(next), 'run', this, 'gaps', table.concat(lines, '\n'))
  return next, this
end

-- The numbers that no record of a lane has any more: pairs of the first, and the first after them.
-- KEYS log
local function gaps(keys, args)
  local next, last_run = unpack(redis.call('HMGET', keys[1], 'next', 'run'))
  turn(keys[1], tonumber(next), last_run, now())
  return redis.call('HGET', keys[1], 'gaps') or ''
end

-- Appends frames of one sender in one go. A sender numbers what it sends from 1 in order, and a frame holds what has
-- some of these numbers; one that ends at or below the last number taken was taken earlier, whatever it was sent
-- together with, and one that begins there was taken in part. Where the last number is below what the sender was
-- told, a failover has lost frames of it. In both cases it is told so before anything is taken.
-- KEYS stream, log · ARGV sender, the last number that it was told of, then the first and the last number, count and
-- payload of each frame
local function append(keys, args)
  local log, sender = keys[2], 'n:' .. args[1]
  if #args < 6 then return 'NOTHING' end
  local ends, next, mark, last_run = unpack(redis.call('HMGET', log, 'end', 'next', sender, 'run'))
  local time, taken = now(), 0
  local number, at, record = string.match(mark or '', '^(%d+) (%d+) (%d+) ')
  taken = tonumber(number or '0')
  if taken < tonumber(args[2]) then return { 'BEHIND', text(taken) } end
  if mark then
    if taken >= tonumber(args[#args - 2]) then return { 'AGAIN', at, record } end
    for at = 3, #args, 4 do
      if taken >= tonumber(args[at]) and taken < tonumber(args[at + 1]) then return { 'PART', text(taken) } end
    end
  else
    -- Nobody repeats a call after a week.
    local all = redis.call('HGETALL', log)
    for at = 1, #all, 2 do
      local seen = string.match(all[at], '^n:%.') and string.match(all[at + 1], ' (%d+)$')
      if seen and tonumber(seen) + 604800000 < time then redis.call('HDEL', log, all[at]) end
    end
  end
  local this
  ends, next, this = tonumber(ends or '0'), turn(log, tonumber(next), last_run, time)
  next = next or 0
  local start = ends
  for at = 3, #args, 4 do
    if tonumber(args[at]) > taken then
      ends = ends + #args[at + 3]
      next = next + args[at + 2]
      redis.call('XADD', keys[1], text(ends) .. '-' .. text(next), 'c', args[at + 2], 'p', args[at + 3])
    end
  end
  redis.call('HSET', log, 'end', text(ends), 'next', text(next), 'run', this or '', sender,
    args[#args - 2] .. ' ' .. text(ends) .. ' ' .. text(next) .. ' ' .. text(time))
  return { 'OK', text(ends), text(next), text(start) }
end

-- Notes that the process of a spool is there.
-- KEYS the register of spools · ARGV sender, node
local function enlist(keys, args)
  redis.call('HSET', keys[1], args[1], text(now()) .. ' ' .. args[2])
  return 'OK'
end

-- Appends to a spool whose only writer gives the positions: one that is not beyond the last was taken earlier.
-- KEYS stream · ARGV the end, count and payload of each frame
local function spool(keys, args)
  for at = 1, #args, 3 do
    local done = redis.pcall('XADD', keys[1], args[at] .. '-0', 'c', args[at + 1], 'p', args[at + 2])
    if type(done) == 'table' and done.err and not string.find(done.err, 'equal or smaller', 1, true) then
      return done
    end
  end
  return 'OK'
end

-- Gives up frames that end at or before a position and before the checkpoint, some at a time; none while the lane is
-- read.
-- KEYS stream, log, the lane's hash · ARGV position
local function release(keys, args)
  if is_read(keys[3]) then return 0 end
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

-- Gives message ids to who asks, where they are nobody's, or somebody's who the window has passed; tells whose the
-- others are. One that was received longer before another than the window counts beside it.
-- KEYS for each: the hash it is kept in · ARGV the window, then for each: the field, the row, which begins with when
-- its event was received
local function claim(keys, args)
  local found, window = { }, tonumber(args[1])
  for at = 1, #keys do
    local key, field, row = keys[at], args[2 * at], args[2 * at + 1]
    found[at] = false
    if redis.call('HSETNX', key, field, row) == 0 then
      local have = redis.call('HGET', key, field)
      local age = string.find(key, ':m:%d+$') and struct.unpack('>I6', row) - struct.unpack('>I6', have) or 0
      if age > window then
        redis.call('HSET', key, field, row)
      elseif age >= -window then
        found[at] = have
      end
    end
  end
  return found
end

-- Takes claims back of events that are gone.
-- KEYS for each: the hash it is kept in · ARGV for each: the field, the event as the row has it
local function disclaim(keys, args)
  for at = 1, #keys do
    local have = redis.call('HGET', keys[at], args[2 * at - 1])
    if have and string.sub(have, 7) == args[2 * at] then redis.call('HDEL', keys[at], args[2 * at - 1]) end
  end
  return 'OK'
end

-- Sweeps out the claims of what was received before a time.
-- KEYS the hash they are kept in · ARGV the time
local function sweep(keys, args)
  local all, before, gone = redis.call('HGETALL', keys[1]), tonumber(args[1]), { }
  for at = 1, #all, 2 do
    if struct.unpack('>I6', all[at + 1]) < before then gone[#gone + 1] = all[at] end
  end
  each_slice(gone, 1, #gone, function(...) redis.call('HDEL', keys[1], ...) end)
  return #gone
end

-- Writes a batch down under the target's next number.
-- KEYS destination, outbox · ARGV format, the target's field, its row before and after, the batch's field, its
-- bytes, its delivery, how many deliveries are kept
local function prepare(keys, args)
  local destination = keys[1]
  local format, row, order = unpack(redis.call('HMGET', destination, 'format', args[2], 'order'))
  if format and format ~= args[1] then return { 'FORMAT', format } end
  if row == args[4] then return { 'OK' } end
  if (row or '') ~= args[3] then return { 'CHANGED' } end
  order = text((tonumber(order or '0')) + 1)
  redis.call('HSET', destination, 'format', args[1], 'order', order, args[2], args[4], 'd:' .. order, args[7])
  redis.call('HDEL', destination, 'd:' .. text(order - args[8]))
  redis.call('HSET', keys[2], args[5], args[6], 'n:' .. args[5], order)
  return { 'OK' }
end

-- Changes what is on record of a delivery whose batch is prepared.
-- KEYS destination, outbox · ARGV the batch's field, the delivery's, the delivery before and after
local function note(keys, args)
  if redis.call('HEXISTS', keys[2], 'n:' .. args[1]) == 0 then return 'OK' end
  local have = redis.call('HGET', keys[1], args[2])
  if have and have ~= args[4] then
    if have ~= args[3] then return 'CHANGED' end
    redis.call('HSET', keys[1], args[2], args[4])
  end
  return 'OK'
end

-- Settles a batch, or a part of a large one: only the last part takes it out of the outbox.
-- KEYS destination, outbox, held, unsure · ARGV the batch's field, a token of this settling, whether this part
-- is the first, whether the last, the delivery's field, the delivery before and after, then what becomes of each
-- member: s(ure), u(nsure) or g(one), and its bytes
local function settle(keys, args)
  local destination, out, held, unsure = unpack(keys)
  local settling, numbered = 's:' .. args[1], 'n:' .. args[1]
  local order, token = unpack(redis.call('HMGET', out, numbered, settling))
  if not order then return 'OK' end
  if args[3] == '0' and token ~= args[2] then return 'CHANGED' end
  local delivery = args[4] == '1' and redis.call('HGET', destination, args[5])
  if delivery and delivery ~= args[6] then return 'CHANGED' end
  for at = 8, #args do
    local mark, member = string.sub(args[at], 1, 1), string.sub(args[at], 2)
    if mark == 'g' then redis.call('ZREM', held, member) else redis.call('ZADD', held, 0, member) end
    if mark == 'u' then redis.call('SADD', unsure, member) else redis.call('SREM', unsure, member) end
  end
  if args[4] == '0' then
    redis.call('HSET', out, settling, args[2])
  else
    redis.call('HDEL', out, args[1], numbered, settling, 'j:' .. args[1])
    if delivery then redis.call('HSET', destination, args[5], args[7]) end
  end
  return 'OK'
end

-- What frees memory, or holds on to what is there, works when there is none left.
local function register(name, callback, flags)
  redis.register_function{ function_name = '@LIBRARY@_' .. name, callback = callback, flags = flags or { } }
end

register('found', found)
register('receive', receive)
register('begin', begin)
register('swap', swap)
register('beat', beat, { 'allow-oom' })
register('strike', strike, { 'allow-oom' })
register('nodes', nodes, { 'no-writes' })
register('lead', lead, { 'allow-oom' })
register('leader', leader, { 'no-writes' })
register('resign', resign, { 'allow-oom' })
register('acquire', acquire, { 'allow-oom' })
register('renew', renew, { 'allow-oom' })
register('pin', pin, { 'allow-oom' })
register('commit', commit)
register('list', list)
register('look', look, { 'no-writes' })
register('append', append)
register('enlist', enlist, { 'allow-oom' })
register('spool', spool)
register('gaps', gaps)
register('release', release, { 'allow-oom' })
register('claim', claim)
register('disclaim', disclaim)
register('sweep', sweep, { 'allow-oom' })
register('balance', balance, { 'no-writes' })
register('prepare', prepare)
register('note', note)
register('settle', settle)
