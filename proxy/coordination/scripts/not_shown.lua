-- Note that Meta does not show a person (100/33).
-- KEYS: the row of such people, the verdict, the witnesses.
-- ARGV: a person, how many are enough, how long they are kept, how often witnesses are
-- asked at most in ms.
-- Returns how many there are now, what the witnesses say ('' also if there are too few
-- people to ask them), those to ask now.

local threshold = tonumber(ARGV[2])
if redis.call('SCARD', KEYS[1]) < threshold then redis.call('SADD', KEYS[1], ARGV[1]) end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
local count = redis.call('SCARD', KEYS[1])
if count < threshold then return {count, '', {}} end
local may_look, to_ask = consult(KEYS[2], KEYS[3], ARGV[4], ARGV[3])
return {count, may_look, to_ask}
