-- seat, seats in the order in which they should keep, then pairs: digest, how many copies of others it takes
-- Who is named as a keeper has to stay for a while, so that of several who want to go at once all but that one can.
local KEEPS = 60000
local seat, answers, rank = ARGV[1], {}, {}
local place = 0
for other in string.gmatch(ARGV[2], '%S+') do
    place = place + 1
    rank[other] = place
end

local function best(others)
    local found = others[1]
    for _, other in ipairs(others) do
        if (rank[other] or math.huge) < (rank[found] or math.huge) then found = other end
    end
    return found
end

for index = 3, #ARGV, 2 do
    local holders, kept_by = root .. 'h:' .. ARGV[index], root .. 'k:' .. ARGV[index]
    local others = living(redis.call('SMEMBERS', holders), seat)
    local keeper = redis.call('GET', kept_by)
    local may_go = keeper ~= seat and #others >= tonumber(ARGV[index + 1])
    if may_go and #others > 0 then
        local is_there = false
        for _, other in ipairs(others) do
            if other == keeper then is_there = true end
        end
        if not is_there then keeper = best(others) end
        redis.call('SET', kept_by, keeper, 'PX', KEEPS)
    end
    if may_go then
        redis.call('SREM', holders, seat)
    end
    answers[#answers + 1] = {may_go and 1 or 0, #others, may_go and #others > 0 and keeper or ''}
end
return answers
