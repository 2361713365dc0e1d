-- digest, seat, boot, region, seat and fence of a suspect, how long a lease is remembered, whether it may lead
local digest, seat, boot, region, suspect, suspect_fence, kept, may_lead = unpack(ARGV)
local leases = root .. 'l:' .. digest
local held = redis.call('HMGET', leases, 'r' .. region, 'f')
local regional, leading = lease(held[1]), lease(held[2])
if regional and regional[1] == suspect and regional[2] == suspect_fence then regional = nil end
if leading and leading[1] == suspect and leading[2] == suspect_fence then leading = nil end

local holders = living(redis.call('SMEMBERS', root .. 'h:' .. digest), seat)
local reached = {}
if #holders > 0 then
    local proven = redis.call('HMGET', root .. 'proof', unpack(holders))
    for index, holder in ipairs(holders) do
        if proven[index] then reached[#reached + 1] = holder end
    end
end

local given
local function take(field)
    given = given or next_fence()
    redis.call('HSET', leases, field, seat .. ' ' .. boot .. ' ' .. given)
    redis.call('PEXPIRE', leases, kept)
    return {seat, given}
end
if not regional and (may_lead == '1' or leading or #reached > 0) then regional = take('r' .. region) end
if not regional or regional[1] ~= seat then
    leading = nil
elseif not leading then
    leading = take('f')
end
return {reached, regional or {}, leading or {}}
