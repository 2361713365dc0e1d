-- seat, whether the holders themselves are wanted, then digests
local seat, is_full, answers = ARGV[1], ARGV[2] == '1', {}
for index = 3, #ARGV do
    local holders = redis.call('SMEMBERS', root .. 'h:' .. ARGV[index])
    local found = living(holders, seat)
    answers[#answers + 1] = is_full and found or (#holders > 0 and #found or -1)
end
return answers
