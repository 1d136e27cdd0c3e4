// Connects a plain js-libp2p host (TCP, Noise, yamux) to the address in the first argument, pings it, reads its
// identify record, makes one call of /debros/rpc/1.0.0, and prints what it saw as one line of JSON.
import './node20.mjs'
import { noise } from '@chainsafe/libp2p-noise'
import { yamux } from '@chainsafe/libp2p-yamux'
import { identify } from '@libp2p/identify'
import { ping } from '@libp2p/ping'
import { tcp } from '@libp2p/tcp'
import { multiaddr } from '@multiformats/multiaddr'
import { createLibp2p } from 'libp2p'

// Frame { id: 1, request: Request { get: GetRequest { key: "js" } } } after its length.
const GET_JS = Uint8Array.from([11, 0x08, 1, 0x12, 7, 0x8a, 0x04, 4, 0x0a, 2, 0x6a, 0x73])

const host = await createLibp2p({
  transports: [tcp()],
  connectionEncrypters: [noise()],
  streamMuxers: [yamux()],
  services: { identify: identify(), ping: ping() }
})

const address = multiaddr(process.argv[2])
const connection = await host.dial(address)
const roundTrip = await host.services.ping.ping(address)
const record = await host.services.identify.identify(connection)

const stream = await connection.newStream('/debros/rpc/1.0.0')
let sent
const answer = await new Promise((resolve, reject) => {
  sent = stream.sink((async function * () {
    yield GET_JS
    // Closing this side would tell the node that nobody waits any more.
    await new Promise(resolve => { stream.gotAnswer = resolve })
  })()).catch(reject)
  ;(async () => {
    const bytes = []
    for await (const chunk of stream.source) {
      bytes.push(...chunk.subarray())
      if (bytes.length > 0 && bytes.length >= bytes[0] + 1) {
        return bytes
      }
    }
    throw new Error('the stream ended without an answer')
  })().then(resolve, reject)
})
stream.gotAnswer()
await sent

console.log(JSON.stringify({
  peer: connection.remotePeer.toString(),
  encryption: connection.encryption,
  multiplexer: connection.multiplexer,
  pinged: Number.isFinite(roundTrip),
  agent: record.agentVersion,
  protocolVersion: record.protocolVersion,
  protocols: record.protocols,
  listens: record.listenAddrs.map(String),
  answer
}))
await host.stop()
