// What all peers share: commands come as lines on stdin, answers go as lines to stdout.
//
//   install N   make the tables, with N due jobs               ok {...}
//   boot        connect                                        ok
//   work        start to run jobs                              ok, and from then on "runs N" while N grows
//   collect     tell when which job's handler started          at NUMBER NANOSECONDS NUMBER NANOSECONDS ..., twice N, ok
//   stop        end                                            ok
//
// When stdin ends, so does the process: it outlives nobody.
import { performance } from 'node:perf_hooks'
import { createInterface } from 'node:readline'

const options = JSON.parse(process.argv[2])
const starts = new Float64Array(options.jobs)
let runs = 0
let twice = 0

// run is the handler of every job.
export async function run(payload) {
  const n = payload.n
  if (n >= 0 && n < starts.length) {
    if (starts[n] !== 0) twice++
    starts[n] = performance.timeOrigin + performance.now()
    runs++
  }
  if (options.each > 0) await new Promise(resolve => setTimeout(resolve, options.each))
}

const say = line => process.stdout.write(line + '\n')

function collect() {
  let line = 'at'
  starts.forEach((at, n) => {
    if (at === 0) return
    line += ` ${n} ${BigInt(Math.round(at * 1e3)) * 1000n}`
    if (line.length > 60000) {
      say(line)
      line = 'at'
    }
  })
  say(line)
  say(`twice ${twice}`)
}

export async function serve(peer) {
  let told = 0
  const timer = setInterval(() => {
    if (runs !== told) say(`runs ${told = runs}`)
  }, 10)
  process.on('SIGINT', () => {}) // whoever started this process ends it
  for await (const line of createInterface({ input: process.stdin })) {
    const [command, argument] = line.split(' ')
    try {
      let answer = {}
      if (command === 'install') answer = await peer.install(options, Number(argument)) ?? {}
      if (command === 'boot') answer = await peer.boot(options) ?? {}
      if (command === 'work') await peer.work(options)
      if (command === 'collect') collect()
      if (command === 'stop') await peer.stop()
      say(`ok ${JSON.stringify(answer)}`)
    } catch (error) {
      say(`error ${JSON.stringify(String(error.stack ?? error))}`)
    }
    if (command === 'stop') break
  }
  clearInterval(timer)
  process.exit(0)
}
