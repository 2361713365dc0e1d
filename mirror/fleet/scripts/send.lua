-- identity of the receiver, message
return redis.call('PUBLISH', root .. 'in:' .. ARGV[1], 'm' .. ARGV[2])
