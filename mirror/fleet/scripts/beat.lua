-- identity, boot, boot of the run before it, its region, URL, what it tells, a new generation,
-- the last changes that it knows of members and of facts, whether its URL is known to be right, whether it can check,
-- whether it answers there
local identity, boot, former, region, url, told, fresh = unpack(ARGV, 1, 7)
local members_seen, facts_seen, is_proven, can_check = ARGV[8], ARGV[9], ARGV[10] == '1', ARGV[11] == '1'
local serves = ARGV[12] == '1'
local PAGE = 200

redis.call('SET', root .. 'generation', fresh, 'NX')
local generation = redis.call('GET', root .. 'generation')
local seat = redis.call('HGET', root .. 'seats', identity)
if not seat then
    seat = tostring(redis.call('INCR', root .. 'seat'))
    redis.call('HSET', root .. 'seats', identity, seat)
end

-- Two with one identity: the elder stays. A run that its store knows to have ended is no elder, unless it beats again.
local held_by = redis.call('HGET', root .. 'boots', seat)
if held_by and held_by ~= boot and is_live(seat) then
    if redis.call('HGET', root .. 'elders', seat) == boot then
        redis.call('HDEL', root .. 'elders', seat)
    elseif held_by == former then
        redis.call('HSET', root .. 'elders', seat, held_by)
    else
        return {'taken', clock[1], clock[2]}
    end
end
local is_new = held_by ~= boot or not is_live(seat)
redis.call('HSET', root .. 'boots', seat, boot)
if serves ~= (redis.call('HGET', root .. 'serving', seat) == boot) then
    redis.call('HSET', root .. 'serving', seat, serves and boot or '')
    is_new = true
end
redis.call('ZADD', root .. 'live', now, seat)
if redis.call('HGET', root .. 'members', seat) ~= told then
    redis.call('HSET', root .. 'members', seat, told)
    redis.call('ZADD', root .. 'changed', redis.call('INCR', root .. 'changes'), seat)
end
local proof = redis.call('HGET', root .. 'proof', seat)
if is_proven then
    redis.call('HSET', root .. 'proof', seat, url)
    proof = url
elseif proof and proof ~= url then
    redis.call('HDEL', root .. 'proof', seat)
    redis.call('HDEL', root .. 'refuted', seat)
    proof = false
end
if is_new then
    redis.call('PUBLISH', root .. 'all', 'b')
end

-- Who was away for a month is forgotten, and so are facts that no longer hold.
for _, gone in ipairs(redis.call('ZRANGEBYSCORE', root .. 'live', '-inf', now - 30 * DAY, 'LIMIT', 0, 10)) do
    local member = redis.call('HGET', root .. 'members', gone)
    if member then
        redis.call('HDEL', root .. 'seats', cjson.decode(member).identity)
    end
    for _, name in ipairs({'members', 'boots', 'elders', 'proof', 'refuted', 'serving'}) do
        redis.call('HDEL', root .. name, gone)
    end
    redis.call('ZREM', root .. 'live', gone)
    redis.call('ZREM', root .. 'changed', gone)
end
for _, field in ipairs(redis.call('ZRANGEBYSCORE', root .. 'facts:until', '-inf', now, 'LIMIT', 0, 100)) do
    redis.call('HDEL', root .. 'facts', field)
    redis.call('ZREM', root .. 'facts:until', field)
    redis.call('ZREM', root .. 'facts:changed', field)
end
for _, name in ipairs({
    'generation', 'seat', 'seats', 'boots', 'elders', 'members', 'changed', 'changes', 'live', 'proof', 'refuted',
    'serving', 'facts', 'facts:until', 'facts:changed',
}) do
    redis.call('PEXPIRE', root .. name, 35 * DAY)
end

local live = redis.call('ZRANGEBYSCORE', root .. 'live', now - LIVE, '+inf')
local to_check = ''
if can_check then
    local proven = redis.call('HMGET', root .. 'proof', unpack(live))
    local serving = redis.call('HMGET', root .. 'serving', unpack(live))
    for index, other in ipairs(live) do
        if not proven[index] and serving[index] and serving[index] ~= '' and other ~= seat
            and redis.call('SET', root .. 'check:' .. other, seat, 'NX', 'PX', 700) then
            to_check = other
            break
        end
    end
end

local function news(changed, held, seen)
    local names = redis.call('ZRANGEBYSCORE', root .. changed, '(' .. seen, '+inf', 'WITHSCORES', 'LIMIT', 0, PAGE)
    local rows = {}
    for index = 1, #names, 2 do
        rows[#rows + 1] = {names[index], names[index + 1], redis.call('HGET', root .. held, names[index])}
    end
    return rows
end

return {
    'member', clock[1], clock[2], seat, generation, proof and 1 or 0,
    tonumber(redis.call('HGET', root .. 'refuted', seat) or '0'), live, to_check,
    news('changed', 'members', members_seen), news('facts:changed', 'facts', facts_seen),
    redis.call('GET', root .. 'orders:last') or '0',
}
