-- how long holders are remembered, then threes: what is told, of which digest, about which seat
-- "+" it holds it, "-" it does not, "~" it fills it no more
local kept = ARGV[1]
for index = 2, #ARGV, 3 do
    local what, digest, seat = ARGV[index], ARGV[index + 1], ARGV[index + 2]
    if what == '+' then
        redis.call('SADD', root .. 'h:' .. digest, seat)
        redis.call('PEXPIRE', root .. 'h:' .. digest, kept)
    elseif what == '-' then
        redis.call('SREM', root .. 'h:' .. digest, seat)
    else
        local held = redis.call('HGETALL', root .. 'l:' .. digest)
        for place = 1, #held, 2 do
            if string.match(held[place + 1], '^%S+') == seat then
                redis.call('HDEL', root .. 'l:' .. digest, held[place])
            end
        end
    end
end
