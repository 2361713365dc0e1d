-- seat, then pairs: digest, how many copies of others it takes
local seat, answers = ARGV[1], {}
for index = 2, #ARGV, 2 do
    local holders = root .. 'h:' .. ARGV[index]
    local others = living(redis.call('SMEMBERS', holders), seat)
    local may_go = #others >= tonumber(ARGV[index + 1])
    if may_go then
        redis.call('SREM', holders, seat)
    end
    answers[#answers + 1] = {may_go and 1 or 0, others}
end
return answers
