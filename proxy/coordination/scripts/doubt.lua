-- Stands after gate.lua, before the scripts about a permission that may be lost.

-- Return what the witnesses say, 1: Meta may look, 0: it may not, '': not known yet;
-- and those to ask now, which are none if they have been asked lately.
local function consult(verdict, witnesses, asked_every, kept_for)
  drop_old_witnesses(witnesses)
  local people = redis.call('ZREVRANGE', witnesses, 0, -1)
  if #people == 0 then return '0', people end
  local state = redis.call('HMGET', verdict, 'may_look', 'ask_after')
  if now < (tonumber(state[2] or '') or 0) then
    people = {}
  else
    redis.call('HSET', verdict, 'ask_after', now + asked_every)
    redis.call('PEXPIRE', verdict, kept_for)
  end
  return state[1] or '', people
end

-- Whether enough different people have raised the question.
local function is_raised(verdict, not_shown, threshold)
  return redis.call('HGET', verdict, 'is_refused') == '1'
    or redis.call('SCARD', not_shown) >= tonumber(threshold)
end
