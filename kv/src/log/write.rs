//! Writing: [`ReadWrite`] for the log store.

use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;

use embedded_io_async::Read;
use fogbow::lock::Guard;
use fogbow_block::Block;

use super::LogStore;
use super::entry::{CHUNK, name_of};
use super::objects::{Content, Object};
use super::transaction::Transaction;
use crate::{Change, Key, ReadWrite, StreamError, WriteError};

impl<B: Block> LogStore<B> {
    /// The lock for staging, and a transaction; none in a store that takes no more writes.
    async fn begin(&self, key: Key<'_>) -> Result<(Guard<'_, ()>, Transaction<'_, B>), WriteError> {
        let stage = self.0.stage.lock().await;
        // A commit that failed stays staged: nobody should hear of conflicts with what is not there.
        self.0.check_broken().map_err(|fault| fault.write(key))?;
        Ok((stage, Transaction::new(&self.0)))
    }

    /// Commits a transaction, with the taking apart of some garbage.
    async fn end(
        &self,
        key: Key<'_>,
        stage: Guard<'_, ()>,
        mut transaction: Transaction<'_, B>,
        is_removal: bool,
    ) -> Result<(), WriteError> {
        transaction.check_size(key)?;
        let failed = |fault: super::Fault| fault.write(key);
        if !transaction.operations.list.is_empty() {
            self.0.sweep_some(&mut transaction).await;
            self.0.make_room(&transaction, is_removal, &stage).await.map_err(failed)?;
        }
        self.0.submit(stage, transaction).await.map_err(failed)
    }

    async fn set_content(&self, key: Key<'_>, content: Content<'_, '_, B>) -> Result<(), WriteError> {
        let (stage, mut transaction) = self.begin(key).await?;
        transaction.set(key, content).await?;
        self.end(key, stage, transaction, false).await
    }

    /// Removes as [`ReadWrite::remove`] does. `progress` is told how many values have been removed so far, now and then.
    ///
    /// # Errors
    /// As there.
    pub async fn remove_with(&self, key: Key<'_>, mut progress: impl FnMut(u64)) -> Result<(), WriteError> {
        let (mut removed, mut most) = (0, self.0.most_removed());
        loop {
            let (stage, mut transaction) = self.begin(key).await?;
            let is_all = transaction.remove(key, most).await?;
            let count = transaction.operations.list.iter().filter(|(key, _)| name_of(key).is_some()).count() as u64;
            match self.end(key, stage, transaction, true).await {
                // The less is removed at once, the less room that takes.
                Err(WriteError::NoSpace(_)) if most > 1 => {
                    most /= 2;
                    continue;
                }
                result => result?,
            }
            removed += count;
            progress(removed);
            if is_all {
                return Ok(());
            }
        }
    }

    /// Puts all that is in the log into the tree, so that the next one who opens the store has nothing to replay. Never needed.
    ///
    /// # Errors
    /// [`WriteError::Unavailable`].
    pub async fn checkpoint(&self) -> Result<(), WriteError> {
        self.0.drain().await.map_err(|fault| fault.write(Key::ROOT))
    }
}

impl<B: Block> ReadWrite for LogStore<B> {
    async fn set(&self, key: Key<'_>, value: &[u8]) -> Result<(), WriteError> {
        let content = self.0.content(key, value).await.map_err(|fault| fault.write(key))?;
        self.set_content(key, content).await
    }

    async fn set_stream<R: Read>(&self, key: Key<'_>, source: &mut R) -> Result<u64, StreamError<R::Error>> {
        let failed = |fault: super::Fault| fault.write(key);
        let mut buffer = Vec::new();
        buffer.try_reserve_exact(CHUNK).map_err(|_| WriteError::Unavailable { key: key.to_string(), reason: "no memory".into() })?;
        buffer.resize(CHUNK, 0);
        let mut object = None;
        let mut size = 0;
        loop {
            let length = fill(source, &mut buffer).await.map_err(StreamError::Source)?;
            size += length as u64;
            let is_last = length < CHUNK;
            if object.is_none() && is_last {
                self.set(key, &buffer[..length]).await?;
                return Ok(size);
            }
            let object = object.get_or_insert_with(|| Object::new(&self.0));
            if length > 0 {
                object.push(&buffer[..length]).await.map_err(failed)?;
            }
            if is_last {
                break;
            }
        }
        if let Some(object) = object {
            self.set_content(key, Content::Object(object)).await?;
        }
        Ok(size)
    }

    async fn batch(&self, changes: &[Change<'_>]) -> Result<(), WriteError> {
        if changes.is_empty() {
            return Ok(());
        }
        let mut contents = Vec::new();
        for change in changes {
            contents.push(match change {
                Change::Set(key, value) => Some(self.0.content(*key, value).await.map_err(|fault| fault.write(*key))?),
                _ => None,
            });
        }
        let mut key = changes.first().map_or(Key::ROOT, Change::key);
        let (stage, mut transaction) = self.begin(key).await?;
        for (change, content) in changes.iter().zip(contents) {
            key = change.key();
            transaction.change(change, content).await?;
        }
        let is_removal = changes.iter().all(|change| matches!(change, Change::Remove(_)));
        self.end(key, stage, transaction, is_removal).await
    }

    async fn set_partial(&self, key: Key<'_>, offset: u64, part: &[u8]) -> Result<(), WriteError> {
        let (stage, mut transaction) = self.begin(key).await?;
        // A small value is set as a whole.
        match transaction.small(key).await? {
            Some(mut value) if offset.saturating_add(part.len() as u64) <= self.0.max_logged() as u64 => {
                let start = offset as usize;
                value.resize(value.len().max(start + part.len()), 0);
                value[start..start + part.len()].copy_from_slice(part);
                let is_inline = super::entry::is_inline(key.as_str(), value.len());
                let content = if is_inline { Content::Inline(&value) } else { Content::Logged(&value) };
                transaction.set(key, content).await?;
            }
            _ => transaction.set_partial(key, offset, part, &stage).await?,
        }
        self.end(key, stage, transaction, false).await
    }

    async fn allocate(&self, key: Key<'_>, size: u64) -> Result<(), WriteError> {
        let (stage, mut transaction) = self.begin(key).await?;
        if transaction.exists(key).await? {
            return Err(WriteError::Exists(key.to_string()));
        }
        if super::entry::is_inline(key.as_str(), usize::try_from(size).unwrap_or(usize::MAX)) {
            transaction.set(key, Content::Inline(&vec![0; size as usize])).await?;
        } else {
            transaction.allocate(key, size).await?;
        }
        self.end(key, stage, transaction, false).await
    }

    async fn remove(&self, key: Key<'_>) -> Result<(), WriteError> {
        self.remove_with(key, |_| {}).await
    }

    async fn rename(&self, from: Key<'_>, to: Key<'_>) -> Result<(), WriteError> {
        self.batch(&[Change::Rename(from, to)]).await
    }
}

/// Reads until `buffer` is full or the source has ended, and gives how much that is.
async fn fill<R: Read>(source: &mut R, buffer: &mut [u8]) -> Result<usize, R::Error> {
    let mut length = 0;
    while length < buffer.len() {
        match source.read(&mut buffer[length..]).await? {
            0 => break,
            count => length += count,
        }
    }
    Ok(length)
}
