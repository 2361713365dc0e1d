-- after which number
return redis.call('ZRANGEBYSCORE', root .. 'orders', '(' .. ARGV[1], '+inf', 'LIMIT', 0, 500)
