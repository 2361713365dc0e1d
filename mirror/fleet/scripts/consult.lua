-- topic, "later than", seat, boot, identity, for how long a turn lasts, the fence of a turn that counts no more
local topic, newer_than, seat, boot, identity, lasts, suspect = unpack(ARGV)
local answer = redis.call('GET', root .. 'a:' .. topic)
if answer then
    local at, value = string.match(answer, '^(%S+) (.*)$')
    if tonumber(at) > tonumber(newer_than) then
        return {'posted', at, value}
    end
end
local turn = lease(redis.call('GET', root .. 't:' .. topic))
if turn and turn[1] ~= seat and turn[2] ~= suspect then
    redis.call('SADD', root .. 'w:' .. topic, identity)
    redis.call('PEXPIRE', root .. 'w:' .. topic, lasts)
    return {'wait', turn[1], turn[2]}
end
local fence = next_fence()
redis.call('SET', root .. 't:' .. topic, seat .. ' ' .. boot .. ' ' .. fence, 'PX', lasts)
return {'turn', fence}
