package sqlfunc

// What the function may want to know of its job, and how long it may take: for this transaction alone. It doesn't outlive this
// process, whose job runs again elsewhere and would wait for its locks; Windows can't tell.
const settingsSQL = `SELECT set_config('statement_timeout', $1, true), set_config('pgbell.job_id', $2, true),
  set_config('pgbell.job_type', $3, true), set_config('pgbell.attempt', $4, true), set_config('pgbell.max_attempts', $5, true),
  set_config('pgbell.lease', $6, true), set_config('idle_in_transaction_session_timeout', '30s', true),
  set_config('client_connection_check_interval', CASE WHEN version() ~* 'windows|mingw|visual c' THEN '0' ELSE '2s' END, true)`

// {function} is the quoted name. Takes whatever locks the function takes.
const callSQL = `SELECT {function}($1::jsonb)`
