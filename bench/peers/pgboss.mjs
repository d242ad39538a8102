import { PgBoss } from 'pg-boss'
import { run, serve } from './protocol.mjs'

const queue = 'bench'
let boss

function connected({ url, instance }) {
  const made = new PgBoss({ connectionString: url, ...instance })
  made.on('error', error => process.stderr.write(`${error.stack ?? error}\n`))
  return made
}

await serve({
  async install(options, jobs) {
    const boss = connected({ ...options, instance: {} })
    await boss.start()
    await boss.createQueue(queue, options.queue)
    for (let from = 0; from < jobs; from += 10000) {
      const count = Math.min(10000, jobs - from)
      await boss.insert(queue, Array.from({ length: count }, (_, i) => ({ data: { n: from + i } })))
    }
    await boss.stop()
  },
  async boot(options) {
    boss = connected(options)
    await boss.start()
    // The statement of send(), for a producer that isn't this process.
    let statement
    await boss.send(queue, {}, { db: { executeSql: async text => { statement = text; return { rows: [{ id: '' }] } } } })
    return { insert: statement }
  },
  async work(options) {
    await boss.work(queue, options.work, async jobs => { await Promise.all(jobs.map(job => run(job.data))) })
  },
  async stop() {
    await boss?.stop({ graceful: true, timeout: 10000 })
  },
})
