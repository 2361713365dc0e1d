-- seat, boot, how long a lease is remembered, then threes: digest, field, fence
local seat, boot, kept = ARGV[1], ARGV[2], ARGV[3]
for index = 4, #ARGV, 3 do
    local leases = root .. 'l:' .. ARGV[index]
    redis.call('HSETNX', leases, ARGV[index + 1], seat .. ' ' .. boot .. ' ' .. ARGV[index + 2])
    redis.call('PEXPIRE', leases, kept)
end
