-- half-life, then pairs: digest, how often it was used
-- A score is log2(sum of 2^(t / half-life)) over all uses, so that nothing has to be rewritten as time passes.
local MOST, FAINT = 1000000, 12
local now_in_lives, log2 = now / tonumber(ARGV[1]), math.log(2)
for index = 2, #ARGV, 2 do
    local score = redis.call('ZSCORE', root .. 'uses', ARGV[index])
    local before = score and 2 ^ (tonumber(score) - now_in_lives) or 0
    local sum = math.log(before + tonumber(ARGV[index + 1])) / log2 + now_in_lives
    redis.call('ZADD', root .. 'uses', string.format('%.17g', sum), ARGV[index])
end
redis.call('ZREMRANGEBYSCORE', root .. 'uses', '-inf', now_in_lives - FAINT)
redis.call('ZREMRANGEBYRANK', root .. 'uses', 0, -(MOST + 1))
redis.call('PEXPIRE', root .. 'uses', 30 * DAY)
