-- KEYS: an allowance. ARGV: how many calls, in how many milliseconds.
-- Returns 0, or in how many milliseconds the next allowance begins.

local spent = tonumber(redis.call('GET', KEYS[1]) or '0')
if spent >= tonumber(ARGV[1]) then return redis.call('PTTL', KEYS[1]) end
if redis.call('INCR', KEYS[1]) == 1 then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 0
