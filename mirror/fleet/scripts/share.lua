-- fours: field, at, until, value
local MOST = 50000
for index = 1, #ARGV, 4 do
    local field, at, till, value = unpack(ARGV, index, index + 3)
    local known = redis.call('HGET', root .. 'facts', field)
    if not known or tonumber(string.match(known, '^%S+')) < tonumber(at) then
        redis.call('HSET', root .. 'facts', field, at .. ' ' .. till .. ' ' .. value)
        redis.call('ZADD', root .. 'facts:until', till * 1000, field)
        redis.call('ZADD', root .. 'facts:changed', redis.call('INCR', root .. 'changes'), field)
    end
end
while redis.call('ZCARD', root .. 'facts:until') > MOST do
    local field = redis.call('ZPOPMIN', root .. 'facts:until')[1]
    redis.call('HDEL', root .. 'facts', field)
    redis.call('ZREM', root .. 'facts:changed', field)
end
redis.call('PUBLISH', root .. 'all', 'f')
