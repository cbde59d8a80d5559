// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {FluToken} from "./FluToken.sol";
import {ICollateral} from "./interfaces/ICollateral.sol";
import {INodeRegistry} from "./interfaces/INodeRegistry.sol";

/// @title The collateral of nodes.
/// @notice Rule: FLU held here = the sum over nodes of free + locked + thawing + the sum of credits. Money leaves by pull only.
/// @dev No owner. The judges decide *that* a node is slashed and who was harmed; the split is fixed here, so a faulty judge can
/// neither burn less than half nor pay more than it may. Assumes that FLU is FluToken: no fee on transfer, no hook.
contract Collateral is ICollateral {
    using SafeERC20 for FluToken;

    /// @inheritdoc ICollateral
    uint256 public constant HARMED_PERCENT_MAX = 30;
    /// @notice What the challenger gets of a slash.
    uint256 public constant CHALLENGER_PERCENT = 20;

    /// @notice The token.
    FluToken public immutable flu;
    /// @notice Who operates a node.
    INodeRegistry public immutable registry;
    /// @inheritdoc ICollateral
    address public immutable judge;
    /// @inheritdoc ICollateral
    address public immutable voteJudge;
    /// @inheritdoc ICollateral
    uint64 public immutable thawBlocks;

    mapping(bytes32 node => Balance) private _balances;
    /// @inheritdoc ICollateral
    mapping(address account => uint256) public creditOf;

    constructor(FluToken flu_, INodeRegistry registry_, address judge_, address voteJudge_, uint64 thawBlocks_) {
        flu = flu_;
        registry = registry_;
        judge = judge_;
        voteJudge = voteJudge_;
        thawBlocks = thawBlocks_;
    }

    modifier onlyOperator(bytes32 node) {
        if (registry.operatorOf(node) != msg.sender) revert NotOperator(node, msg.sender);
        _;
    }

    modifier onlyJudge() {
        if (msg.sender != judge) revert NotJudge(msg.sender);
        _;
    }

    /// @inheritdoc ICollateral
    function deposit(bytes32 node, uint256 amount) public {
        if (amount == 0) revert AmountZero();
        registry.operatorOf(node); // reverts for an unknown node: nobody could withdraw
        _balances[node].free += uint128(amount); // amount <= 1e26, or the transfer fails
        emit Deposited(node, msg.sender, amount);
        flu.safeTransferFrom(msg.sender, address(this), amount);
    }

    /// @inheritdoc ICollateral
    function depositWithPermit(bytes32 node, uint256 amount, uint256 deadline, uint8 v, bytes32 r, bytes32 s) external {
        // Someone may have used the permit first; then the allowance is there and the deposit goes on.
        try flu.permit(msg.sender, address(this), amount, deadline, v, r, s) {} catch {}
        deposit(node, amount);
    }

    /// @inheritdoc ICollateral
    function thaw(bytes32 node, uint256 amount) external onlyOperator(node) {
        if (amount == 0) revert AmountZero();
        Balance storage balance = _balances[node];
        _takeFree(node, balance, amount);
        balance.thawing += uint128(amount);
        uint64 thawedAt = uint64(block.number) + thawBlocks;
        balance.thawedAt = thawedAt;
        emit Thawing(node, amount, thawedAt);
    }

    /// @inheritdoc ICollateral
    function withdraw(bytes32 node) external onlyOperator(node) {
        Balance storage balance = _balances[node];
        uint256 amount = balance.thawing;
        if (amount == 0) revert NothingToWithdraw();
        if (block.number < balance.thawedAt) revert NotThawed(node, balance.thawedAt);
        balance.thawing = 0;
        balance.thawedAt = 0;
        emit Withdrawn(node, msg.sender, amount);
        flu.safeTransfer(msg.sender, amount);
    }

    /// @inheritdoc ICollateral
    function withdrawCredit() external {
        uint256 amount = creditOf[msg.sender];
        if (amount == 0) revert NothingToWithdraw();
        creditOf[msg.sender] = 0;
        emit CreditWithdrawn(msg.sender, amount);
        flu.safeTransfer(msg.sender, amount);
    }

    /// @inheritdoc ICollateral
    function lock(bytes32 node, uint256 amount) external onlyJudge {
        Balance storage balance = _balances[node];
        _takeFree(node, balance, amount);
        balance.locked += uint128(amount);
        emit Locked(node, amount);
    }

    /// @inheritdoc ICollateral
    function unlock(bytes32 node, uint256 amount) external onlyJudge {
        Balance storage balance = _balances[node];
        balance.locked -= uint128(amount); // the judge never unlocks more than is locked; if it did, this reverts
        balance.free += uint128(amount);
        emit Unlocked(node, amount);
    }

    /// @inheritdoc ICollateral
    function slash(
        bytes32 node,
        uint256 amount,
        address challenger,
        address[] calldata owners,
        uint256[] calldata claims
    ) external returns (uint256 taken) {
        if (msg.sender != judge && msg.sender != voteJudge) revert NotJudge(msg.sender);
        if (owners.length != claims.length) {
            revert LengthMismatch(owners.length, claims.length);
        }
        uint256 before;
        (taken, before) = _take(node, amount);
        uint256 toHarmed = _creditHarmed(node, taken * HARMED_PERCENT_MAX / 100, owners, claims); // rounds down
        uint256 toChallenger = taken * CHALLENGER_PERCENT / 100; // rounds down
        _credit(challenger, node, toChallenger);
        uint256 burned = taken - toHarmed - toChallenger;
        emit Slashed(node, challenger, burned, toHarmed, toChallenger, before, before - taken);
        if (burned != 0) flu.burn(burned);
    }

    /// @inheritdoc ICollateral
    function balanceOf(bytes32 node) external view returns (Balance memory) {
        return _balances[node];
    }

    /// @dev Takes up to `amount`: locked first, then free, then thawing.
    function _take(bytes32 node, uint256 amount) private returns (uint256 taken, uint256 before) {
        Balance memory balance = _balances[node];
        before = uint256(balance.locked) + balance.free + balance.thawing;
        taken = Math.min(amount, before);
        uint256 fromLocked = Math.min(taken, balance.locked);
        uint256 fromFree = Math.min(taken - fromLocked, balance.free);
        balance.locked -= uint128(fromLocked);
        balance.free -= uint128(fromFree);
        balance.thawing -= uint128(taken - fromLocked - fromFree);
        _balances[node] = balance;
    }

    /// @dev Pays each claim in full if the budget holds all of them, else in proportion, rounded down.
    function _creditHarmed(bytes32 node, uint256 budget, address[] calldata owners, uint256[] calldata claims)
        private
        returns (uint256 paid)
    {
        uint256 claimed = 0;
        for (uint256 i = 0; i < claims.length; ++i) {
            claimed += claims[i];
        }
        for (uint256 i = 0; i < claims.length; ++i) {
            uint256 share = claimed <= budget ? claims[i] : Math.mulDiv(budget, claims[i], claimed); // rounds down
            _credit(owners[i], node, share);
            paid += share;
        }
    }

    function _credit(address account, bytes32 node, uint256 amount) private {
        if (amount == 0) return;
        creditOf[account] += amount;
        emit Credited(account, node, amount);
    }

    function _takeFree(bytes32 node, Balance storage balance, uint256 amount) private {
        if (amount > balance.free) revert NotEnoughFree(node, balance.free, amount);
        balance.free -= uint128(amount);
    }
}
