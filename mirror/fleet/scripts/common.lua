-- KEYS[1] is what all keys begin with. Times are milliseconds.
--
-- seats      hash: identity of a replica -> a small number, its seat, which is never given again
-- boots      hash: seat -> the nonce of the run that has it;  elders: the run that it was taken from
-- members    hash: seat -> what the replica tells of itself;  changed: zset of seats by when it last changed
-- live       zset: seat -> its last beat
-- serving    hash: seat -> the nonce of the run whose data port answers
-- proof      hash: seat -> the URL at which a sibling has reached it;  refuted: how often siblings did not
-- h:<digest> set: the seats of its holders
-- k:<digest> the seat of who was named last to keep it
-- l:<digest> hash: r<region> or f (the fleet) -> "seat boot fence" of who fills it
-- a:<topic>  "at value": an answer;  t:<topic> "seat boot fence": who asks;  w:<topic> set: who waits
local root = KEYS[1]
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local LIVE = 4000
local DAY = 86400000

local function is_live(seat)
    local beat = redis.call('ZSCORE', root .. 'live', seat)
    return beat and tonumber(beat) >= now - LIVE
end

-- The live ones among seats, without one's own.
local function living(seats, own)
    local found = {}
    if #seats == 0 then return found end
    local beats = redis.call('ZMSCORE', root .. 'live', unpack(seats))
    for index, seat in ipairs(seats) do
        if seat ~= own and beats[index] and tonumber(beats[index]) >= now - LIVE then
            found[#found + 1] = seat
        end
    end
    return found
end

-- "seat boot fence" as a table, if that replica still runs.
local function lease(value)
    if not value then return nil end
    local seat, boot, fence = string.match(value, '^(%S+) (%S+) (%S+)$')
    if is_live(seat) and redis.call('HGET', root .. 'boots', seat) == boot then
        return {seat, fence}
    end
    return nil
end

-- A number that grows with each call, also after all was lost.
local function next_fence()
    local last = tonumber(redis.call('GET', root .. 'fence') or '0')
    local fence = math.max(last + 1, clock[1] * 1000000 + clock[2])
    local text = string.format('%.0f', fence)
    redis.call('SET', root .. 'fence', text, 'PX', DAY)
    return text
end

local function wake(topic)
    for _, identity in ipairs(redis.call('SMEMBERS', root .. 'w:' .. topic)) do
        redis.call('PUBLISH', root .. 'in:' .. identity, 'w' .. topic)
    end
    redis.call('DEL', root .. 'w:' .. topic)
end

