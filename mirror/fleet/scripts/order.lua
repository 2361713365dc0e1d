-- what is ordered
-- Numbers are the time, so that they grow also after all was lost.
local last = tonumber(redis.call('GET', root .. 'orders:last') or '0')
local number = string.format('%.0f', math.max(last + 1, now))
redis.call('ZADD', root .. 'orders', number, number .. ' ' .. ARGV[1])
redis.call('SET', root .. 'orders:last', number, 'PX', 30 * DAY)
redis.call('ZREMRANGEBYSCORE', root .. 'orders', '-inf', now - 30 * DAY)
redis.call('ZREMRANGEBYRANK', root .. 'orders', 0, -100001)
redis.call('PEXPIRE', root .. 'orders', 30 * DAY)
redis.call('PUBLISH', root .. 'all', 'o')
return number
