//! Chunks of large values, on the device.

use alloc::rc::Rc;
use alloc::vec;
use alloc::vec::Vec;

use fogbow_block::Block;

use super::cache::Cached;
use super::entry::{Chunk, chunk_key};
use super::error::Fault;
use super::layout::{Extent, NodeRef};
use super::tree::{Found, Layers};
use super::{Inner, Value, zeros};

impl<B: Block> Inner<B> {
    /// The bytes of a chunk; none where there is none, which stands for zeros. Should its value be replaced meanwhile, its pages may be given to something
    /// else: an error then, and whoever reads a value that can be replaced looks again whether it was.
    pub(crate) async fn chunk(&self, object: u64, number: u64, layers: Layers<'_>) -> Result<Value, Fault> {
        let key = chunk_key(object, number);
        match self.find(&key, layers).await? {
            None => Ok(Value::new(zeros(0), 0..0)),
            Some(Found::Data(data)) => Ok(Value::new(Rc::clone(&data), 0..data.len())),
            Some(Found::Value(value)) => {
                let chunk = Chunk::parse(value.as_ref()).ok_or(Fault::Entry)?;
                Ok(Value::new(self.read_chunk(&key, &chunk).await?, 0..chunk.length))
            }
        }
    }

    async fn read_chunk(&self, key: &[u8], chunk: &Chunk) -> Result<Rc<[u8]>, Fault> {
        let at = NodeRef { page: chunk.extents.first().map_or(0, |extent| extent.page), checksum: chunk.checksum };
        let cached = self.cache.borrow_mut().get(at);
        if let Some(Cached::Chunk(bytes)) = cached {
            return Ok(bytes);
        }
        let bytes = self.load_chunk(key, chunk).await?;
        self.cache.borrow_mut().insert(at, Cached::Chunk(Rc::clone(&bytes)));
        Ok(bytes)
    }

    /// Reads and checks a chunk, past the cache.
    pub(crate) async fn load_chunk(&self, key: &[u8], chunk: &Chunk) -> Result<Rc<[u8]>, Fault> {
        let length = chunk.pages() * self.geometry.page;
        let Some(first) = chunk.extents.first().filter(|_| length >= chunk.length) else { return Err(Fault::Entry) };
        let mut bytes = zeros(length);
        if let Some(mut into) = Rc::get_mut(&mut bytes) {
            for extent in &chunk.extents {
                if !self.is_data(*extent) {
                    return Err(Fault::Entry);
                }
                let (part, rest) = into.split_at_mut(extent.count as usize * self.geometry.page);
                self.read_pages(extent.page, part).await?;
                into = rest;
            }
        }
        if chunk.matches(key, &bytes[..chunk.length]) { Ok(bytes) } else { Err(Fault::Damaged(first.page)) }
    }

    /// Writes a chunk to pages that were taken for it.
    pub(crate) async fn write_chunk(&self, key: &[u8], data: &[u8], extents: Vec<Extent>) -> Result<Chunk, Fault> {
        let page = self.geometry.page;
        let mut rest = data;
        for extent in &extents {
            let (part, behind) = rest.split_at(rest.len().min(extent.count as usize * page));
            let whole = part.len() / page * page;
            let mut padded = Vec::new();
            if whole < part.len() {
                padded = vec![0; page];
                padded[..part.len() - whole].copy_from_slice(&part[whole..]);
            }
            let buffers: [&[u8]; 2] = [&part[..whole], &padded];
            let used = if padded.is_empty() { &buffers[..1] } else { &buffers[usize::from(whole == 0)..] };
            self.device.write_vectored(extent.page * self.sectors(), used).await?;
            rest = behind;
        }
        Ok(Chunk::new(key, data, extents))
    }
}
