import { Logger, makeWorkerUtils, run as start } from 'graphile-worker'
import pg from 'pg'
import { run, serve } from './protocol.mjs'

const logger = new Logger(() => () => {})
let pool, runner

await serve({
  async install({ url }) {
    const utils = await makeWorkerUtils({ connectionString: url, logger })
    await utils.migrate()
    await utils.release()
  },
  async boot({ url, preset }) {
    pool = new pg.Pool({ connectionString: url, max: preset.maxPoolSize ?? 10 })
    pool.on('error', () => {})
    const clients = await Promise.all(Array.from({ length: pool.options.max }, () => pool.connect()))
    clients.forEach(client => client.release())
  },
  async work({ preset }) {
    runner = await start({
      pgPool: pool, noHandleSignals: true, parsedCronItems: [], logger,
      preset: { worker: { ...preset, logger } },
      taskList: { bench: run },
    })
  },
  async stop() {
    await runner?.stop()
    await pool?.end()
  },
})
