//! A gzip stream made by all processors at once, the same bytes whatever their number.
//!
//! The content is cut into blocks of a fixed size. Each is compressed by itself, with the end of the block before it as
//! its dictionary, and ends at a byte's border (RFC 1951, section 3.2.4: an empty stored block). One after the other they
//! are one deflate stream, in one gzip member, since some readers stop after the first.

use std::io::{self, Write};
use std::mem;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, Scope, ScopedJoinHandle};

use flate2::{Compress, Compression, Crc, FlushCompress, Status};

/// How hard content of up to so many bytes is compressed. On an 88 kB module, 6 takes 1 ms; 9 takes 3.6 ms and saves 1.5 %.
const SMALL: (u64, u32) = (4 << 20, 6);

/// How hard more is. Of 64 MiB of machine code, 2 makes 8 to 9 % more than 6 in half of the time; 1 would make 30 % more.
const LARGE_LEVEL: u32 = 2;

/// What is compressed at a time. Most modules are smaller, and their stream is what any encoder makes of one piece.
const BLOCK: usize = 128 << 10;

/// How far back deflate looks.
const WINDOW: usize = 32 << 10;

/// More would only take more memory.
const MOST_THREADS: usize = 8;

/// What a block takes with its dictionary, and what it is compressed to at worst.
const CAPACITY: usize = WINDOW + BLOCK + BLOCK / 8 + 1024;

/// So much of a block is looked at, in one place, to see whether it is noise.
const SAMPLE: usize = 2 << 10;

/// From so many places.
const SAMPLES: usize = 4;

/// No name, no time, operating system unknown (RFC 1952, section 2.3): the same everywhere.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

/// Compress what `fill` writes, which is about `size` bytes, into `sink`.
pub(super) fn compress<T, E: From<io::Error>>(
    size: u64,
    sink: &mut (dyn Write + Send),
    fill: impl FnOnce(&mut dyn Write) -> Result<T, E>,
) -> Result<T, E> {
    let threads = thread::available_parallelism().map_or(1, usize::from).min(MOST_THREADS);
    let level = if size <= SMALL.0 { SMALL.1 } else { LARGE_LEVEL };
    compress_with(threads, level, sink, fill)
}

fn compress_with<T, E: From<io::Error>>(
    threads: usize,
    level: u32,
    sink: &mut (dyn Write + Send),
    fill: impl FnOnce(&mut dyn Write) -> Result<T, E>,
) -> Result<T, E> {
    sink.write_all(&HEADER)?;
    thread::scope(|scope| {
        let alone = Work::Alone(Output::new(sink));
        let pool = Pool::default();
        let current = Block { bytes: pool.take(), dictionary: 0 };
        let mut blocks = Blocks { scope, threads, level, current, work: alone, pool };
        let filled = fill(&mut blocks);
        // Why nothing more could be written is said by whoever writes.
        blocks.finish(filled.is_ok())?;
        filled
    })
}

/// A piece of content.
struct Block {
    /// The dictionary, and then the content.
    bytes: Vec<u8>,
    dictionary: usize,
}

impl Block {
    fn content(&self) -> &[u8] {
        &self.bytes[self.dictionary..]
    }

    /// An empty one to come after this, in memory that has been used before.
    fn next(&self, mut memory: Vec<u8>) -> Self {
        memory.clear();
        memory.extend_from_slice(&self.bytes[self.bytes.len().saturating_sub(WINDOW)..]);
        Self { dictionary: memory.len(), bytes: memory }
    }
}

/// Memory that is used again.
#[derive(Clone, Default)]
struct Pool(Arc<Mutex<Vec<Vec<u8>>>>);

impl Pool {
    fn take(&self) -> Vec<u8> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_else(|| Vec::with_capacity(CAPACITY))
    }

    fn give(&self, memory: Vec<u8>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(memory);
    }
}

/// Compressed blocks on their way out.
struct Output<'env> {
    sink: &'env mut (dyn Write + Send),
    crc: Crc,
}

impl<'env> Output<'env> {
    fn new(sink: &'env mut (dyn Write + Send)) -> Self {
        Self { sink, crc: Crc::new() }
    }

    fn write(&mut self, compressed: &[u8], crc: &Crc) -> io::Result<()> {
        self.crc.combine(crc);
        self.sink.write_all(compressed)
    }

    fn finish(self) -> io::Result<()> {
        self.sink.write_all(&self.crc.sum().to_le_bytes())?;
        // Modulo 2^32, as RFC 1952 has it.
        self.sink.write_all(&self.crc.amount().to_le_bytes())
    }
}

/// A block to be compressed, and where to put what comes of it.
struct Job {
    block: Block,
    last: bool,
    done: SyncSender<io::Result<(Vec<u8>, Crc)>>,
}

type Ordered = Receiver<io::Result<(Vec<u8>, Crc)>>;

enum Work<'scope, 'env> {
    /// As long as there is one block only, it is not worth a thread.
    Alone(Output<'env>),
    Together {
        jobs: SyncSender<Job>,
        order: SyncSender<Ordered>,
        writer: ScopedJoinHandle<'scope, io::Result<()>>,
    },
    Ended,
}

/// What takes the content, and cuts it.
struct Blocks<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    threads: usize,
    level: u32,
    current: Block,
    work: Work<'scope, 'env>,
    pool: Pool,
}

impl Write for Blocks<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.current.content().len() == BLOCK && !bytes.is_empty() {
            self.submit(false)?;
        }
        let taken = bytes.len().min(BLOCK - self.current.content().len());
        self.current.bytes.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Blocks<'_, '_> {
    fn submit(&mut self, last: bool) -> io::Result<()> {
        let next = self.current.next(self.pool.take());
        let block = mem::replace(&mut self.current, next);
        if !last && self.threads > 1 && matches!(self.work, Work::Alone(..)) {
            self.start()?;
        }
        match &mut self.work {
            Work::Alone(output) => {
                let mut compressed = self.pool.take();
                let crc = compress_block(&block, last, self.level, &mut compressed)?;
                output.write(&compressed, &crc)?;
                self.pool.give(compressed);
                self.pool.give(block.bytes);
                Ok(())
            }
            Work::Together { jobs, order, .. } => {
                let (done, ordered) = sync_channel(1);
                let stopped = |_| io::Error::other("the writer has stopped");
                order.send(ordered).map_err(stopped)?;
                jobs.send(Job { block, last, done }).map_err(|_| io::Error::other("the compressors have stopped"))
            }
            Work::Ended => Err(io::Error::other("the stream has ended")),
        }
    }

    /// Share the work from here on.
    fn start(&mut self) -> io::Result<()> {
        let Work::Alone(mut output) = mem::replace(&mut self.work, Work::Ended) else { return Ok(()) };
        // One block is ready when a compressor is; more would only be more memory.
        let (jobs, waiting) = sync_channel::<Job>(0);
        let waiting = Arc::new(Mutex::new(waiting));
        for _ in 0..self.threads {
            let (waiting, pool, level) = (Arc::clone(&waiting), self.pool.clone(), self.level);
            let work = move || {
                settle_heap();
                loop {
                    let job = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok(Job { block, last, done }) = job else { return };
                    let mut compressed = pool.take();
                    let crc = compress_block(&block, last, level, &mut compressed);
                    pool.give(block.bytes);
                    // Nobody waits for it where writing has failed.
                    let _ = done.send(crc.map(|crc| (compressed, crc)));
                }
            };
            thread::Builder::new().spawn_scoped(self.scope, work)?;
        }
        let (order, ordered) = sync_channel::<Ordered>(self.threads - 1);
        let pool = self.pool.clone();
        let write = move || {
            for block in ordered {
                // A block whose compressor is gone was never finished, and neither is the stream.
                let Ok(done) = block.recv() else { return Err(io::Error::other("a compressor has stopped")) };
                let (compressed, crc) = done?;
                output.write(&compressed, &crc)?;
                pool.give(compressed);
            }
            output.finish()
        };
        let writer = thread::Builder::new().spawn_scoped(self.scope, write)?;
        self.work = Work::Together { jobs, order, writer };
        Ok(())
    }

    fn finish(mut self, complete: bool) -> io::Result<()> {
        let submitted = if complete { self.submit(true) } else { Ok(()) };
        match self.work {
            Work::Alone(output) if complete => submitted.and_then(|()| output.finish()),
            Work::Alone(..) | Work::Ended => submitted,
            Work::Together { jobs, order, writer } => {
                drop((jobs, order));
                let written = writer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                written.and(submitted)
            }
        }
    }
}

/// Keeps a thread's heap from growing to seven encoders. glibc cuts what is left of an aligned piece off its end, and keeps
/// up to seven such ends of a size, each of which keeps the room before it from being joined with what is free. Here it gets
/// them beforehand.
fn settle_heap() {
    for size in (24..=104).step_by(16) {
        let ends: Vec<Vec<u8>> = (0..7).map(|_| Vec::with_capacity(size)).collect();
        drop(std::hint::black_box(ends));
    }
}

/// Compress a block. A new encoder is made each time: one that is used again gives other bytes, as valid, and which blocks
/// it has had before depends on the threads.
fn compress_block(block: &Block, last: bool, level: u32, into: &mut Vec<u8>) -> io::Result<Crc> {
    let content = block.content();
    let mut crc = Crc::new();
    crc.update(content);
    into.clear();
    if is_noise(content, into)? {
        deflate(&mut encoder(0), content, last, into)?;
        return Ok(crc);
    }
    let mut encoder = encoder(level);
    if block.dictionary > 0 {
        encoder.set_dictionary(&block.bytes[..block.dictionary])?;
    }
    deflate(&mut encoder, content, last, into)?;
    Ok(crc)
}

/// Of a raw deflate stream; what is around it is written here.
fn encoder(level: u32) -> Compress {
    Compress::new(Compression::new(level), false)
}

/// Whether it is not worth trying: in a few places, all bytes are about as frequent, and they do not become smaller. It is told
/// in whole numbers, which are the same everywhere.
fn is_noise(content: &[u8], scratch: &mut Vec<u8>) -> io::Result<bool> {
    if content.len() < 2 * SAMPLES * SAMPLE {
        return Ok(false);
    }
    let parts = content.chunks(content.len() / SAMPLES);
    let sample: Vec<u8> = parts.flat_map(|part| part.iter().take(SAMPLE).copied()).collect();
    let mut counts = [0_u64; 256];
    for byte in &sample {
        counts[usize::from(*byte)] += 1;
    }
    let squares: u64 = counts.iter().map(|count| count * count).sum();
    // For noise it is a little more than 1 in 256.
    if squares * 256 * 100 > (sample.len() * sample.len()) as u64 * 107 {
        return Ok(false);
    }
    deflate(&mut encoder(1), &sample, true, scratch)?;
    let smaller = scratch.len() * 64 < sample.len() * 63;
    scratch.clear();
    Ok(!smaller)
}

/// Compress one block; unless it is the last, it ends with an empty stored block.
fn deflate(stream: &mut Compress, content: &[u8], last: bool, into: &mut Vec<u8>) -> io::Result<()> {
    let flush = if last { FlushCompress::Finish } else { FlushCompress::Sync };
    // More than the worst case, so that one call does it, and where it stops does not depend on the memory's size.
    into.reserve(content.len() + content.len() / 8 + 1024);
    let status = stream.compress_vec(content, into, flush)?;
    let all = stream.total_in() == content.len() as u64 && into.len() < into.capacity();
    if all && (status == Status::StreamEnd) == last { Ok(()) } else { Err(io::Error::other("deflate did not end")) }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn noise(size: usize) -> Vec<u8> {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let words = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        });
        words.flatten().take(size).collect()
    }

    /// Compresses by about half.
    fn text(size: usize) -> Vec<u8> {
        noise(size).iter().map(|byte| byte & 0x0f).collect()
    }

    fn compressed(threads: usize, content: &[u8], at_a_time: usize) -> Vec<u8> {
        let mut sink = Vec::new();
        let fill = |writer: &mut dyn Write| content.chunks(at_a_time).try_for_each(|chunk| writer.write_all(chunk));
        compress_with(threads, LARGE_LEVEL, &mut sink, fill).unwrap();
        sink
    }

    #[test]
    fn it_is_one_member_whatever_the_size() {
        for content in [
            Vec::new(),
            b"x".to_vec(),
            text(BLOCK - 1),
            text(BLOCK),
            text(BLOCK + 1),
            noise(BLOCK),
            noise(3 * BLOCK + 17),
            [text(2 * BLOCK), noise(2 * BLOCK), text(5)].concat(),
        ] {
            let gzip = compressed(2, &content, 10_000);
            // Stops after the first member, and says what is left.
            let mut decoder = flate2::bufread::GzDecoder::new(gzip.as_slice());
            let mut back = Vec::new();
            decoder.read_to_end(&mut back).unwrap();
            assert!(back == content, "{} bytes", content.len());
            assert!(decoder.into_inner().is_empty());
        }
    }

    #[test]
    fn bytes_do_not_depend_on_threads_nor_on_how_they_come() {
        let content = [text(3 * BLOCK + 1), noise(2 * BLOCK), text(BLOCK)].concat();
        let alone = compressed(1, &content, content.len());
        for (threads, at_a_time) in [(2, 4096), (3, 1 << 20), (8, 77_777)] {
            assert!(compressed(threads, &content, at_a_time) == alone, "{threads} threads");
        }
    }

    #[test]
    fn noise_is_stored_and_what_only_looks_like_it_is_not() {
        let size = 4 * BLOCK;
        let stored = compressed(2, &noise(size), size).len();
        assert!((size..size + size / 1000).contains(&stored), "{stored}");
        let repeated: Vec<u8> = noise(1024).into_iter().cycle().take(size).collect();
        assert!(compressed(2, &repeated, size).len() < size / 20);
    }

    #[test]
    fn a_block_is_compressed_with_what_is_before_it() {
        let phrase = noise(WINDOW / 4);
        let content: Vec<u8> =
            text(BLOCK - phrase.len()).into_iter().chain(phrase.clone()).chain(phrase.clone()).collect();
        let without = compressed(1, &content[..BLOCK], BLOCK).len();
        assert!(compressed(1, &content, BLOCK).len() < without + 1000, "the phrase is told by reference");
    }

    /// Takes so many bytes, and then no more.
    struct Full(usize);

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::StorageFull)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_failure_is_told_by_whoever_has_it() {
        let content = text(20 * BLOCK);
        for threads in [1, 3] {
            let error =
                compress_with(threads, LARGE_LEVEL, &mut Full(BLOCK), |writer| writer.write_all(&content)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::StorageFull, "{threads} threads");
            let error = compress_with(threads, LARGE_LEVEL, &mut io::sink(), |writer| {
                writer.write_all(&content)?;
                Err::<(), io::Error>(io::ErrorKind::UnexpectedEof.into())
            });
            assert_eq!(error.unwrap_err().kind(), io::ErrorKind::UnexpectedEof, "{threads} threads");
        }
    }
}
