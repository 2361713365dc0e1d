-- half-life, then digests
local now_in_lives, answers = now / tonumber(ARGV[1]), {}
for index, score in ipairs(redis.call('ZMSCORE', root .. 'uses', unpack(ARGV, 2))) do
    answers[index] = score and string.format('%.6g', 2 ^ (tonumber(score) - now_in_lives)) or ''
end
return answers
