-- seat, boot
if redis.call('HGET', root .. 'boots', ARGV[1]) == ARGV[2] then
    redis.call('HDEL', root .. 'boots', ARGV[1])
    redis.call('ZREM', root .. 'live', ARGV[1])
    redis.call('PUBLISH', root .. 'all', 'b')
end
