-- topic, fence of the turn, and with an answer: when it was asked for, for how long it is good, the answer
local topic, fence = ARGV[1], ARGV[2]
if #ARGV > 2 then
    local known = redis.call('GET', root .. 'a:' .. topic)
    if not known or tonumber(string.match(known, '^%S+')) <= tonumber(ARGV[3]) then
        redis.call('SET', root .. 'a:' .. topic, ARGV[3] .. ' ' .. ARGV[5], 'PX', ARGV[4])
    end
end
local turn = redis.call('GET', root .. 't:' .. topic)
if turn and string.match(turn, '%S+$') == fence then
    redis.call('DEL', root .. 't:' .. topic)
end
wake(topic)
