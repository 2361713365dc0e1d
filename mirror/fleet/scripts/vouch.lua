-- seat, identity and URL of who was asked for there, and whether it answered as it should
local seat, identity, url, is_right = ARGV[1], ARGV[2], ARGV[3], ARGV[4] == '1'
if is_right then
    redis.call('HSET', root .. 'proof', seat, url)
    redis.call('HDEL', root .. 'refuted', seat)
else
    redis.call('HINCRBY', root .. 'refuted', seat, 1)
end
redis.call('PUBLISH', root .. 'in:' .. identity, 'b')
