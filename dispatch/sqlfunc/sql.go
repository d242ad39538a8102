package sqlfunc

// What the function may want to know of its job, and how long it may take: for this transaction alone.
const settingsSQL = `SELECT set_config('statement_timeout', $1, true), set_config('pgbell.job_id', $2, true),
  set_config('pgbell.job_type', $3, true), set_config('pgbell.attempt', $4, true), set_config('pgbell.max_attempts', $5, true),
  set_config('pgbell.lease', $6, true)`

// {function} is the quoted name. Takes whatever locks the function takes.
const callSQL = `SELECT {function}($1::jsonb)`
