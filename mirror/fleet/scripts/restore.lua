-- pairs: number, what was ordered
local last, is_news = tonumber(redis.call('GET', root .. 'orders:last') or '0'), false
for index = 1, #ARGV, 2 do
    local number = ARGV[index]
    if tonumber(number) > now - 30 * DAY and redis.call('ZCOUNT', root .. 'orders', number, number) == 0 then
        redis.call('ZADD', root .. 'orders', number, number .. ' ' .. ARGV[index + 1])
        last, is_news = math.max(last, tonumber(number)), true
    end
end
if is_news then
    redis.call('SET', root .. 'orders:last', string.format('%.0f', last), 'PX', 30 * DAY)
    redis.call('PEXPIRE', root .. 'orders', 30 * DAY)
    redis.call('PUBLISH', root .. 'all', 'o')
end
